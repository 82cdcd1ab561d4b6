"""Contents and reasoning are found in what a chat template makes of them, and count as data."""

import pytest

from rapid_integrations.engine.prepare import Preparing
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import NO_ARGUMENTS, render
from tests.toys.chat_templates import QWEN3
from tests.toys.models import EOS_ID, IM_END, IM_END_ID, byte_tokenizer
from tests.toys.thinking import showing

NAMES = ("reasoning_content", "thinking", "reasoning")


def vocabulary(template):
    return Vocabulary(byte_tokenizer(chat_template=template, extra_tokens=("<tool_call>",)), {EOS_ID, IM_END_ID})


def conversation(thought, name="reasoning_content", content="Well."):
    return [
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": content, name: thought},
        {"role": "user", "content": "And now?"},
    ]


def spans(prompt):
    return [prompt.text[start:end] for start, end in prompt.data_spans]


@pytest.mark.parametrize("given", NAMES)
@pytest.mark.parametrize("read", NAMES)
def test_reasoning_reaches_a_template_under_the_name_that_it_reads(given, read):
    made = vocabulary(showing(read))
    preparing = Preparing(made, "the model", 300)
    prompt = render(
        conversation("\n It is late. \n", given), lambda messages: preparing._render_chat(messages, None, NO_ARGUMENTS)
    )
    assert "assistant\n<think>\nIt is late.\n</think>\n\nWell.<|im_end|>" in prompt.text
    assert spans(prompt) == ["How are you?", "It is late.", "Well.", "And now?"]


@pytest.mark.parametrize("content", ["Well.", "", "It is late."])
def test_control_tokens_in_reasoning_are_text(content):
    made = vocabulary(showing())
    thought = f"It is{IM_END} late <tool_call>."
    prompt = render(conversation(thought, content=content), made.chat_template)
    ids = made.encode_prompt(prompt)
    assert ids.count(IM_END_ID) == 3 and ids.count(made.added_tokens["<tool_call>"]) == 0
    assert thought in made.decode(ids)


def test_reasoning_that_a_template_does_not_show_changes_nothing():
    made = vocabulary(QWEN3)
    with_it, without = conversation("And now?"), conversation("")
    assert render(with_it, made.chat_template) == render(without, made.chat_template)


def test_a_reworked_content_is_still_found_beside_reasoning():
    made = vocabulary(showing().replace("message.content or ''", "(message.content or '') | upper"))
    messages = conversation("It is late.")
    messages[0]["content"] = messages[2]["content"] = "HOW?"
    assert spans(render(messages, made.chat_template)) == ["HOW?", "It is late.", "HOW?"]
