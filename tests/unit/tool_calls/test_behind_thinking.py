"""What stands inside of thinking is thinking: no call, however it is cut into pieces, and nothing that is forbidden."""

import itertools

import pytest
import torch

from rapid_integrations.models.thinking_marks import Marks
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.tool_calls import ToolCallStream
from rapid_integrations.tool_calls.behind_thinking import BehindThinking
from rapid_integrations.tool_calls.harmony import HARMONY
from rapid_integrations.tool_calls.known_forms import known_form
from tests.toys.call_formats import learn
from tests.toys.call_templates import CODER
from tests.toys.chat_templates import LLAMA31, QWEN25
from tests.toys.models import EOS_ID, byte_tokenizer

THINK = Marks("<think>", "</think>")
OPENED = Marks("<think>", "</think>", opened=True)
CHANNELS = Marks(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    headers=("<|channel|>final<|message|>",),
    again=("<|start|>assistant<|channel|>analysis<|message|>",),
)
CALLS = {
    "qwen": (QWEN25, '<tool_call>\n{"name": "look", "arguments": {"a": 1}}\n</tool_call>'),
    "coder": (CODER, "<tool_call>\n<function=look>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"),
    "llama": (LLAMA31, '{"name": "look", "parameters": {"a": 1}}'),
    "liquid": (None, "<|tool_call_start|>[look(a=1)]<|tool_call_end|>"),
}
FORMS = {
    family: known_form(("<|tool_call_start|>", "<|tool_call_end|>")) if template is None else learn(template)
    for family, (template, _) in CALLS.items()
}


def read(pieces, form, marks, *, cut=False):
    """Return the text that is shown, the names of the calls, and the number of invalid ones."""
    stream = ToolCallStream(form, {"look": {}}, parallel=True, marks=marks)
    shown = "".join(stream.push(piece) for piece in pieces)
    rest = stream.finish(cut=cut)
    return shown + rest.text, [(call.name, call.arguments) for call in rest.calls], len(rest.invalid)


def every_way(text, form, marks, **options):
    """Return what is read of a text, whole, in characters, and cut in two anywhere: always the same."""
    ways = [[text], list(text), *([text[:at], text[at:]] for at in range(1, len(text)))]
    found = [read(way, form, marks, **options) for way in ways]
    assert all(each == found[0] for each in found)
    return found[0]


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize("marks", [THINK, OPENED], ids=["think", "opened"])
def test_a_call_inside_of_thinking_is_thinking(family, marks):
    form, call = FORMS[family], CALLS[family][1]
    begin = "" if marks.opened else "\n<think>"
    made = [("look", {"a": 1})]
    thought = f"{begin}\nPerhaps {call}? {call}\n</think>"
    assert every_way(f"{thought}\n\nNo.", form, marks) == (f"{thought}\n\nNo.", [], 0)
    assert every_way(f"{thought}\n\n{call}", form, marks) == (thought, made, 0)
    assert every_way(f"{begin}{call}</think>{call}", form, marks) == (f"{begin}{call}</think>", made, 0)
    for cut in (False, True):
        unfinished = f"{begin}\nPerhaps {call} or not"
        assert every_way(unfinished, form, marks, cut=cut) == (unfinished, [], 0)
        assert every_way(f"{begin}x</thi", form, marks, cut=cut) == (f"{begin}x</thi", [], 0)


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize("marks", [THINK, OPENED], ids=["think", "opened"])
def test_an_answer_that_ends_with_a_call_calls_without_an_end_of_its_thinking(family, marks):
    form, call = FORMS[family], CALLS[family][1]
    begin, made = "" if marks.opened else "<think>", [("look", {"a": 1})]
    assert every_way(begin + call, form, marks) == (begin, made, 0)
    assert every_way(begin + call, form, marks, cut=True) == (begin + call, [], 0)  # it may go on
    thought = f"{begin}Perhaps {call}? Yes. "
    if form.marked:
        assert every_way(thought + call, form, marks) == (thought, made, 0)
        assert every_way(thought + call[:-5], form, marks)[1] == []
    else:  # only the beginning of an answer is a call
        assert every_way(thought + call, form, marks) == (thought + call, [], 0)


@pytest.mark.parametrize("family", CALLS)
def test_an_answer_without_thinking_is_read_as_before(family):
    form, call = FORMS[family], CALLS[family][1]
    texts = [call, "", " ", "<thi", "<think", "No <think> it is", "Well.", "<tool", f"<thin{call}"]
    if form.marked:
        texts += [f"Well. {call}", f"Well. <think>{call}", f"{call}\n{call}"]
    for text, cut in itertools.product(texts, (False, True)):
        assert every_way(text, form, THINK, cut=cut) == every_way(text, form, None, cut=cut)


def test_further_thinking_in_a_channel_is_thinking():
    call = "<|channel|>commentary to=functions.look <|constrain|>json<|message|>{}"
    thought = f"<|channel|>analysis<|message|>{call} is a call<|end|>"
    again = f"<|start|>assistant<|channel|>analysis<|message|>{call}<|end|>"
    assert every_way(f"{thought}{again}<|start|>assistant{call}", HARMONY, CHANNELS)[1:] == ([("look", {})], 0)
    assert every_way(thought + again, HARMONY, CHANNELS) == (thought + again, [], 0)
    at_once = "<|channel|>analysis to=functions.look <|constrain|>json<|message|>{}"  # a call on the other channel
    assert every_way(at_once, HARMONY, CHANNELS)[1] == [("look", {})]


class Heard:
    """A constraint that allows one token, and keeps what it is told."""

    def __init__(self):
        self.told, self.asked = [], []

    def allowed(self, draft=()):
        self.asked.append(tuple(draft))
        return torch.arange(300) == 0

    def commit(self, token_ids):
        self.told += token_ids


def vocabulary(*tokens):
    return Vocabulary(byte_tokenizer(extra_tokens=tokens), {EOS_ID})


@pytest.mark.parametrize("marked", [(), ("<think>", "</think>"), ("</think>\n\n",), ("</think>Yes",)])
@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_constraint_is_told_of_the_answer_alone(marked, step):
    made = vocabulary(*marked)
    for marks, text, answer in (
        (THINK, "<think>a <thi</think>\n\nYes: é", "Yes: é"),
        (OPENED, "a</think>Yes", "Yes"),
        (THINK, "\n<think></think>Yes", "Yes"),
        (THINK, "<thing>", "<thing>"),
        (THINK, " Yes <think>a</think>", " Yes <think>a</think>"),
        (OPENED, "a </think", ""),
        (THINK, "<think>a", ""),
    ):
        ids = made.tokenizer(text, add_special_tokens=False).input_ids
        heard = Heard()
        constraint = BehindThinking(heard, made, 300, marks)
        for at in range(0, len(ids), step):
            tried = [constraint.allowed(ids[at : at + length]).all() for length in range(step + 1)]
            constraint.commit(ids[at : at + step])
            assert constraint.allowed().all() == tried[min(step, len(ids) - at)]
        assert made.decode(heard.told, frozenset(made.added_tokens.values())) == answer


def test_drafts_are_followed_and_forgotten():
    made, heard = vocabulary("<think>", "</think>"), Heard()
    constraint = BehindThinking(heard, made, 300, THINK)
    opening, closing = (made.added_tokens[each] for each in ("<think>", "</think>"))
    yes, brace = made.encode("Yes"), made.encode("{")
    assert not constraint.allowed().all() and constraint.allowed([opening]).all()
    assert constraint.allowed([opening, *brace]).all() and not constraint.allowed([opening, *brace, closing]).all()
    assert heard.asked[-1] == ()
    constraint.allowed([opening, closing, *yes])
    assert heard.asked[-1] == tuple(yes)
    constraint.allowed(yes)
    assert heard.asked[-1] == tuple(yes) and heard.told == []  # nothing was committed
    constraint.commit([opening, *brace])
    assert constraint.allowed().all()
    constraint.commit([closing, *yes])
    assert heard.told == list(yes) and not constraint.allowed(brace).all()
    assert heard.asked[-1] == tuple(brace)
