"""Toy requests of every setting, and how far their enumerated outcomes are from the law."""

import itertools

import torch

from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.proposal import Proposal, Proposer, ProposerRequest
from rapid_integrations.proposers.suite.every_outcome import enumerate_outcomes
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law
from tests.toys.distributions import largest_difference
from tests.toys.requests import ToyRequest

TOLERANCE = 1e-6
TARGET_LAW = Law("target", temperature=1.0)
AUGMENTED_LAW = Law("augmented", temperature=1.0, eta=5.0)


def outcomes(request: ToyRequest) -> dict[tuple[int, ...], float]:
    return enumerate_outcomes(request.tokens)


def deviation(request: ToyRequest) -> float:
    return largest_difference(outcomes(request), request.expected())


# Eight combinations in which every pair of settings occurs in every combination of their values.
SETTINGS = [
    {
        "temperature": (1.0, 0.7)[a],
        "eta": (5.0, 0.0)[b],
        "tail_rule": ("mask", "restore")[c],
        "top_p": (1.0, 0.8)[a ^ b],
        "repetition_penalty": (1.0, 1.4)[a ^ c],
        "eos": (frozenset(), frozenset({1}))[b ^ c],
    }
    for a, b, c in itertools.product((0, 1), repeat=3)
]


def request(kind: str, settings: dict, **more) -> ToyRequest:
    settings = dict(settings)
    return ToyRequest(
        repetition_penalty=settings.pop("repetition_penalty"),
        eos=settings.pop("eos"),
        law=Law(kind, **settings),
        # Padding columns beyond V would win every draw if they were not cut.
        target=TableLM(1, 3, padding=2),
        drafter=TableLM(2, 3, padding=1),
        **more,
    )


class ScriptedDraftLength:
    """A draft length that changes from round to round."""

    speed = None

    def __init__(self, *lengths: int) -> None:
        self._lengths = itertools.cycle(lengths)

    def next(self) -> int:
        return next(self._lengths)

    def observe(self, costs: RoundTimes) -> None:
        pass


class Stubborn(Proposer):
    """Draws from distributions of its own, a fixed one per position; stops early, but never after a draw."""

    def __init__(self, rows: list[list[float]], stops: bool = False) -> None:
        self._rows = torch.tensor(rows)
        self._stops = stops
        self._committed = 0

    def propose(self, max_tokens, rng) -> Proposal:
        if self._stops and self._committed % 2:
            max_tokens = min(max_tokens, 1)
        rows = self._rows[:max_tokens]
        tokens = tuple(rng.draw(row) for row in rows)
        return Proposal(tokens, rows if tokens else None)

    def commit(self, token_ids) -> None:
        self._committed += len(token_ids)


class Oracle(Proposer):
    """Point masses that change with the committed text."""

    def __init__(self, request: ProposerRequest) -> None:
        self._text = list(request.target_ids)

    def propose(self, max_tokens, rng) -> Proposal:
        return Proposal(tuple((sum(self._text) + i) % 3 for i in range(max_tokens)))

    def commit(self, token_ids) -> None:
        self._text += token_ids


def near(model: TableLM, seed: int) -> TableLM:
    """Return a model that mostly agrees with `model`."""
    other = TableLM(seed, model.vocab_size)
    other.table = model.table + 0.5 * other.table
    return other
