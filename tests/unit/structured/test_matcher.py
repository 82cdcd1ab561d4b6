"""The llguidance constraint: masks, drafts tried and rolled back, ends, and what it refuses."""

import builtins
import random
import threading

import pytest
import torch

from rapid_integrations import ConfigurationError, MissingExtraError, StructuredOutput
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.structured import GrammarConstraint, grammar_of, matcher
from rapid_integrations.structured.library import llguidance_tokenizer
from tests.toys.models import EOS_ID, IM_END_ID, VOCAB_SIZE, byte_tokenizer

EOS = {EOS_ID, IM_END_ID}
VOCABULARY = Vocabulary(byte_tokenizer(merges=[("t", "h"), ("{", '"')]), EOS)
WIDTH = VOCAB_SIZE + 2
RECORD = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


def constraint(width=WIDTH, vocabulary=VOCABULARY, **asked):
    return GrammarConstraint(vocabulary, width, grammar_of(StructuredOutput(**asked)))


def ids(text):
    return VOCABULARY.encode(text)


def allowed(constraint, draft=""):
    return set(constraint.allowed(ids(draft) if isinstance(draft, str) else draft).nonzero().flatten().tolist())


def one(text):
    (token,) = ids(text)
    return token


def test_the_mask_follows_the_draft_and_the_output():
    follows = constraint(regex="ab|ac|d")
    assert allowed(follows) == {one("a"), one("d")}
    assert allowed(follows, "a") == {one("b"), one("c")}
    assert allowed(follows, "d") == EOS
    assert allowed(follows) == {one("a"), one("d")}
    follows.commit(ids("a"))
    assert allowed(follows) == {one("b"), one("c")}
    follows.commit(ids("b"))
    assert allowed(follows) == EOS
    follows.commit([EOS_ID])
    assert allowed(follows) == allowed(follows, [EOS_ID]) == EOS


def test_the_end_is_allowed_where_the_grammar_accepts():
    follows = constraint(regex="[0-9]+")
    assert allowed(follows).isdisjoint(EOS)
    assert allowed(follows, "1") == EOS | {one(digit) for digit in "0123456789"}
    assert allowed(follows, [one("1"), EOS_ID]) == EOS  # behind the end nothing else


@pytest.mark.parametrize("width", [WIDTH, WIDTH + 60, 258])
def test_padding_rows_are_never_allowed_and_the_shared_width_cuts(width):
    follows = constraint(width, regex=r"(.|\n)*")
    mask = follows.allowed()
    assert mask.shape == (width,) and mask.dtype == torch.bool
    assert not mask[WIDTH:].any()
    assert allowed(follows) & {256, 257, 258, 259} == {t for t in EOS if t < width}  # no control token but the ends


def test_a_forbidden_draft_is_an_error_and_leaves_no_trace():
    follows = constraint(regex="ab*")
    with pytest.raises(ValueError, match="not allowed"):
        follows.allowed(ids("abx"))
    assert allowed(follows, "a") == EOS | {one("b")}
    with pytest.raises(ValueError, match="not allowed"):
        follows.commit(ids("x"))


@pytest.mark.parametrize("length", [31, 40])
def test_a_long_draft_is_followed_like_a_short_one(length):
    """The library follows only so much of a costly pattern at once, and then says that the next token is forbidden."""
    asked = {"type": "string", "pattern": r"^(?:\S+\s+){0,29}\S+$", "maxLength": 300}
    text = ids('"This is a sample of what is asked for, and another sample of it, which is longer, and one more."')
    whole, steps = constraint(json_schema=asked), constraint(json_schema=asked)
    for at in range(0, len(text), length):
        draft = text[at : at + length]
        for token in draft:
            steps.commit([token])
        assert torch.equal(whole.allowed(draft), steps.allowed())
        whole.commit(draft)


def test_any_walk_over_drafts_gives_the_masks_of_a_fresh_matcher():
    chance = random.Random(0)
    asked = {"json_schema": {"type": "object", "properties": {"a": {"type": "array"}, "b": {"type": "string"}}}}
    for _ in range(10):
        follows, output = constraint(**asked), []
        for _ in range(6):
            draft = []
            for _ in range(chance.randrange(1, 40)):
                choices = sorted(allowed(follows, draft) - EOS)
                if not choices:
                    break
                draft.append(chance.choice(choices))
                if chance.random() < 0.2:
                    allowed(follows, draft[: chance.randrange(len(draft))])  # look back
            fresh = constraint(**asked)
            fresh.commit(output)
            assert torch.equal(fresh.allowed(draft), follows.allowed(draft))
            kept = draft[: chance.randrange(len(draft) + 1)]
            follows.commit(kept)
            output += kept


def test_white_space_in_json_is_bounded():
    follows = constraint(json_schema=RECORD)
    assert allowed(follows, "{\n" + 16 * " ") == {one('"')}
    assert one("\n") not in allowed(follows, "{\n")
    assert allowed(follows) == {one("{"), WIDTH - 1}  # none before it begins; its last token is '{"'
    assert allowed(follows, '{"a": 1}') == EOS  # nor behind it


def test_a_schema_may_set_its_own_white_space():
    follows = constraint(json_schema={**RECORD, "x-guidance": {"whitespace_flexible": False}})
    assert allowed(follows, "{") == {one('"')}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"json_schema": {"type": "integr"}}, "Invalid type: integr"),
        ({"json_schema": {"$ref": "#/$defs/nowhere"}}, "does not exist"),
        ({"json_schema": {"enum": []}}, "Unsatisfiable"),
        ({"json_schema": {"const": {1, 2}}}, "is not JSON"),
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"grammar": "start: nothing"}, 'unknown name: "nothing"'),
        ({"grammar": "not lark {{"}, "Expected token"),
        ({"grammar": "start: <nowhere>"}, "unknown special token"),
    ],
)
def test_what_llguidance_refuses_is_refused_with_its_reason(asked, said):
    with pytest.raises(ConfigurationError, match="structured output|JSON") as caught:
        constraint(**asked)
    assert said in str(caught.value)


@pytest.mark.parametrize("asked", [{}, {"regex": "a", "grammar": "start: A"}, {"json_schema": {}, "regex": "a"}])
def test_exactly_one_kind_is_given(asked):
    with pytest.raises(ConfigurationError, match="exactly one of json_schema, regex and grammar"):
        StructuredOutput(**asked)


def test_a_model_with_one_eos_token_ends():
    follows = constraint(vocabulary=Vocabulary(byte_tokenizer(), [EOS_ID]), regex="ab")
    assert allowed(follows, "ab") == {EOS_ID}


def test_a_vocabulary_is_read_once_for_all_threads():
    vocabulary = Vocabulary(byte_tokenizer(), EOS)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(llguidance_tokenizer(vocabulary, "a test"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1


def test_a_model_without_an_end_is_refused():
    with pytest.raises(ConfigurationError, match="end-of-sequence token"):
        constraint(vocabulary=Vocabulary(byte_tokenizer(), ()), regex="a")


def test_without_the_package_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "llguidance":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"structured output needs.*rapid-integrations\[structured\]"):
        constraint(regex="a")


def test_a_grammar_that_takes_ever_longer_is_given_up(monkeypatch):
    monkeypatch.setattr(matcher, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(matcher, "USUAL_SECONDS", 0.0)
    follows = constraint(grammar='start: s\ns: s s | "a" | "ab" | ""' + " | s s s" * 60)
    with pytest.raises(ConfigurationError, match="the grammar took 0.* seconds for .* steps.*Simplify it"):
        for _ in range(60):
            follows.allowed()
            follows.commit(ids("a"))
