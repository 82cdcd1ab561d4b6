"""Calls begin behind an answer's thinking: what is written inside of it is no call, and may have any form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rapid_integrations.models.thinking_marks import Marks
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.sampling import Constraint


@dataclass(frozen=True)
class Place:
    """Where the end of an answer stands, seen from its thinking.

    Attributes:
        kind: "before" it, as long as it may begin; in the "thinking"; "between" it and further thinking or the answer;
            in the "answer".
        held: what is not decided yet; inside of thinking, its end, which may be the beginning of the closing mark.
    """

    kind: Literal["before", "thinking", "between", "answer"]
    held: str = ""

    @classmethod
    def first(cls, marks: Marks | None) -> Place:
        """Return the place of an empty answer. Without marks, everything is answer."""
        return cls("answer" if marks is None else "thinking" if marks.opened else "before")

    def behind(self, text: str, marks: Marks) -> tuple[Place, str, str]:
        """Return the place behind further text, and what has now turned out to be thinking and to be answer."""
        thought, place, rest = "", self, text
        while place.kind != "answer":
            if place.kind == "thinking":
                whole = place.held + rest
                end = whole.find(marks.closing)
                if end < 0:
                    kept = whole[max(0, len(whole) - len(marks.closing) + 1) :]
                    return Place("thinking", kept), thought + rest, ""
                end += len(marks.closing)
                thought += whole[len(place.held) : end]
                place, rest = Place("between"), whole[end:]
                continue
            whole, place = place.held + rest, Place(place.kind)
            begun = whole.lstrip()
            openings = (marks.opening,) if place.kind == "before" else marks.again
            if (found := next((each for each in openings if begun.startswith(each)), None)) is not None:
                end = len(whole) - len(begun) + len(found)
                thought += whole[:end]
                place, rest = Place("thinking"), whole[end:]
            elif not begun or any(each.startswith(begun) for each in openings):
                return Place(place.kind, whole), thought, ""
            else:
                place, rest = Place("answer"), whole
        return place, thought, rest


class BehindThinking:
    """Follows a constraint behind an answer's thinking. Inside of it, every token is allowed.

    Args:
        constraint: of the answer. It must allow what thinking begins with as the beginning of a text.
        vocabulary, vocab_size: V; see `GrammarConstraint`.
        marks: how thinking begins and ends.
    """

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary, vocab_size: int, marks: Marks) -> None:
        self._constraint = constraint
        self._vocabulary = vocabulary
        self._marks = _in_bytes(marks)
        self._anything = torch.ones(vocab_size, dtype=torch.bool)
        self._place = Place.first(marks)
        self._undecided: tuple[int, ...] = ()  # tokens of what is held, of which the constraint is not told yet

    def allowed(self, draft: Sequence[int] = ()) -> Tensor:
        """See `Constraint.allowed`."""
        place, tokens, undecided = self._followed(draft)
        return self._anything if place.kind == "thinking" else self._constraint.allowed((*tokens, *undecided))

    def commit(self, token_ids: Sequence[int]) -> None:
        """See `Constraint.commit`."""
        self._place, tokens, self._undecided = self._followed(token_ids)
        if tokens:
            self._constraint.commit(tokens)

    def _followed(self, token_ids: Sequence[int]) -> tuple[Place, list[int], tuple[int, ...]]:
        """Return the place behind tokens, those that belong to the answer, and those of which that is not known."""
        place, undecided = self._place, self._undecided
        for at, token in enumerate(token_ids):
            kind = place.kind
            if kind == "answer":
                return place, list(token_ids[at:]), ()
            place, thought, said = place.behind(self._text(token), self._marks)
            undecided = (*undecided, token)
            if place.kind == "thinking":
                undecided = ()
            elif thought:  # the token ends behind the thinking
                undecided = self._tokens_of(said or place.held)
            if place.kind == "answer":
                behind = kind == "between" or bool(thought)
                tokens = list(itertools.dropwhile(self._is_blank, undecided)) if behind else list(undecided)
                return place, [*tokens, *token_ids[at + 1 :]], ()
        return place, [], undecided

    def _tokens_of(self, text: str) -> tuple[int, ...]:
        """Return tokens of the text behind a mark that ends within a token."""
        return tuple(self._vocabulary.encode(_text_of(text))) if text.strip() else ()

    def _is_blank(self, token: int) -> bool:
        return not self._text(token).strip()

    def _text(self, token: int) -> str:
        return self._vocabulary.token_bytes(token).decode("latin-1")


def _in_bytes(marks: Marks) -> Marks:
    """Return marks as the bytes of their tokens, each of which is a character."""
    opening, closing, *again = (
        each.encode().decode("latin-1") for each in (marks.opening, marks.closing, *marks.again)
    )
    return Marks(opening, closing, marks.opened, again=tuple(again))


def _text_of(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "ignore")
