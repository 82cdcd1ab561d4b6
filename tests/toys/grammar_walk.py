"""Random answers that a constraint allows: what a model without any sense would write."""

import random

from rapid_integrations import StructuredOutput
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.structured import Grammar, GrammarConstraint, grammar_of
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer

ENDS = (EOS_ID, IM_END_ID)
VOCABULARY = Vocabulary(byte_tokenizer(merges=[("t", "h"), ("{", '"')]), set(ENDS))
_CLOSING = {VOCABULARY.encode(character)[0] for character in '"]},'}
_PLAIN = {VOCABULARY.encode(chr(code))[0] for code in range(32, 127)}


def random_answer(asked: StructuredOutput | Grammar, seed: int, most: int = 1500) -> str | None:
    """Return an answer; None for one that has not ended after `most` tokens. It is inclined to close what is open."""
    grammar = grammar_of(asked) if isinstance(asked, StructuredOutput) else asked
    constraint = GrammarConstraint(VOCABULARY, VOCABULARY.highest_token_id + 1, grammar)
    rng, written = random.Random(seed), []
    for _ in range(most):
        allowed = constraint.allowed().nonzero().flatten().tolist()
        if EOS_ID in allowed and (rng.random() < 0.7 or set(allowed) <= set(ENDS)):
            return VOCABULARY.decode(written)
        allowed = [token for token in allowed if token not in ENDS]
        closing = [token for token in allowed if token in _CLOSING]
        plain = [token for token in allowed if token in _PLAIN] or allowed
        token = rng.choice(closing if closing and rng.random() < 0.35 else plain)
        written.append(token)
        constraint.commit([token])
    return None


def left_out(schema: object) -> tuple[str, ...]:
    """Return the rules of a JSON schema that its grammar does not enforce."""
    return grammar_of(StructuredOutput(json_schema=schema)).unenforced


def is_written(asked: StructuredOutput | Grammar, text: str) -> bool:
    """Return whether a model may write exactly this answer and then end."""
    grammar = grammar_of(asked) if isinstance(asked, StructuredOutput) else asked
    constraint = GrammarConstraint(VOCABULARY, VOCABULARY.highest_token_id + 1, grammar)
    try:
        return bool(constraint.allowed(VOCABULARY.encode(text))[EOS_ID])
    except ValueError:
        return False
