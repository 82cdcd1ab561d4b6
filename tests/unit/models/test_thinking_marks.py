"""The marks of every family are known by its template, and a prompt that opens the thinking is seen."""

import pytest

from rapid_integrations import RapidEngine
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.thinking_marks import marks_of, shown_tokens
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import render
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer
from tests.toys.opening_lm import OpeningLM

PAIRS = [
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<mm:think>", "</mm:think>"),
    ("<|channel>thought", "<channel|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
]


def template(opening, closing, opens=False):
    """A template that takes the thinking out of earlier answers, and may open that of the next one."""
    ask = "<|im_start|>assistant\n" + (f"{opening}\n" if opens else "")
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content.split('" + closing + "')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if m and m.thinking %}" + opening + "{% endif %}"
        "{% if add_generation_prompt %}" + ask + "{% endif %}"
    )  # fmt: skip


def marked(chat_template, extra_tokens=()):
    vocabulary = Vocabulary(byte_tokenizer(chat_template=chat_template, extra_tokens=extra_tokens), [EOS_ID, IM_END_ID])
    return vocabulary, marks_of(vocabulary, render("hi", vocabulary.chat_template))


@pytest.mark.parametrize("opens", [False, True])
@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_the_marks_of_a_family(opening, closing, opens):
    _, found = marked(template(opening, closing, opens))
    assert (found.opening, found.closing, found.opened) == (opening, closing, opens)


def test_a_template_that_only_takes_the_thinking_out():
    """It names no more than the end (LFM2.5-Instruct)."""
    text = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
    assert marked(text)[1].opening == "<think>"
    assert marked("{% for m in messages %}{{ m.content }}<|end|>{% endfor %}")[1] is None  # Phi's end of a turn


def test_families_with_the_same_marks_are_told_apart():
    granite = template("<think>", "</think>") + "{% if false %}between <response></response>{% endif %}"
    assert marked(granite)[1].trailer == "</response>"
    minimax = template("<think>", "</think>") + "{% if false %}<response>{{ tool }}</response>{% endif %}"
    assert marked(minimax)[1].trailer == "" and marked(minimax)[1].headers == ()
    solar = (
        "{% for m in messages %}<|begin|>{{ m.role }}<|content|>{{ m.content }}<|end|>{% endfor %}<|begin|>assistant"
    )
    assert marked(solar + "{% if false %}<|think|>{% endif %}")[1].closing == "<|end|>"


@pytest.mark.parametrize(("opening", "closing"), [pair for pair in PAIRS if not pair[0].startswith("Here")])
def test_an_answer_shows_its_marks_though_they_are_control_tokens(opening, closing):
    tokens = [opening.removesuffix("thought"), closing]
    vocabulary, found = marked(template(opening, closing), tokens)
    assert shown_tokens(vocabulary, found) == {vocabulary.added_tokens[token] for token in tokens}
    tokenizer = vocabulary.tokenizer
    said = f"{opening}It is late.{closing}Go."
    begins = [
        tokenizer(text, add_special_tokens=False).input_ids for text in ("<|im_start|>assistant\n", said + "<|im_end|>")
    ]
    engine = RapidEngine(LoadedModel(OpeningLM(0, len(tokenizer), *begins), vocabulary))
    assert engine.generate("hi").text == said
