"""With a remote drafter the output follows its law exactly: every outcome is enumerated over a small vocabulary.

The law's q is the softmax over the best tokens of each of the drafter's distributions. The real loop, the real scorer
of a remote drafter and the real texts of a server are put together; the answers of the server go through frames.
"""

from concurrent.futures import Future

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.proposers.suite.every_outcome import EnumeratedRandomness
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, Penalties
from rapid_integrations.server.remote.back_end import Opened, Received
from rapid_integrations.server.remote.best_rows import cut, packed, unpacked
from rapid_integrations.server.remote.frames import pack, unpack
from rapid_integrations.server.remote.scorer import RemoteScorer
from rapid_integrations.server.remote.texts import BestOnly
from tests.toys.distributions import largest_difference
from tests.toys.enumerated_requests import TOLERANCE
from tests.toys.requests import ToyRequest

BEST, VOCAB = 2, 4


class CutTable(TableLM):
    """A table whose rows are cut to their best tokens: the reference drafter of the law."""

    def forward(self, rows: list[Rows]):
        return [torch.stack([cut(row, BEST) for row in z]) if len(z) else z for z in super().forward(rows)]

    def logits_after(self, text):
        return cut(torch.as_tensor(super().logits_after(text)), BEST).tolist()


class Guessing(EnumeratedRandomness):
    """Numbers that a server may guess draws with are any numbers: its guesses must not matter."""

    def __init__(self, share):
        super().__init__()
        self._share = share

    def ahead(self, count):
        return [self._share] * count


class TextHere:
    """A text of a server, without HTTP: its drafter reads here. `draws` False: the server draws what it likes."""

    url, best, gives_logits = "here", BEST, True

    def __init__(self, lm, prompt, law, vocab_size, draws):
        self.follows_draws = draws
        reader = Reader(lm, prompt, len(prompt) + 16)
        run_alone(reader.prefill())
        self._rules = Rules(law, vocab_size, Penalties(1.0, (), vocab_size))
        self._drafter = BestOnly(reader, self._rules, BEST)
        self._path = []

    def open(self):
        return done(Opened())

    def read(self, commit, draft, have, ahead, shares):
        if commit:
            self._drafter.commit(commit)
            self._path = []
        same = 0
        while same < min(len(draft), len(self._path)) and draft[same] == self._path[same]:
            same += 1
        self._drafter.keep(same)
        path = list(draft)
        run_alone(self._drafter.score(path))
        for step in range(ahead):
            q = self._rules.law.propose(self._drafter.logits(len(path)))
            share = shares[step] if shares else 0.3
            path.append(
                self._rules.law.ops.draw(q, share) if q is not None else int(self._drafter.logits(len(path)).argmax())
            )
            run_alone(self._drafter.score(path))
        self._path = path
        rows = [self._drafter.logits(position) for position in range(have, len(path) + 1)]
        arrays = unpack(pack({}, packed(rows, BEST)))[1] if rows else {}
        got = unpacked(arrays, self._rules.vocab_size) if rows else []
        return done(Received(path[len(draft) :], got, [0.0] * len(got), 1, 1))

    def close(self):
        pass


def done(value):
    future = Future()
    future.set_result(value)
    return future


class RemoteRequest(ToyRequest):
    """A toy request whose drafter is a `RemoteScorer`."""

    draws = True

    def scorer(self, reader, rules):
        text = TextHere(TableLM(2, VOCAB), self.drafter_prompt, self.law, VOCAB, self.draws)
        return RemoteScorer(text, text, rules, len(self.drafter_prompt), "error")


def request(kind, law, proposer, draft_length=2):
    return kind(
        law=law,
        proposer=proposer,
        draft_length=draft_length,
        max_new_tokens=3,
        target=TableLM(1, VOCAB),
        drafter=CutTable(2, VOCAB),
        vocab_size=VOCAB,
    )


def enumerated(asked, share=0.5):
    rng, found = Guessing(share), {}
    while True:
        outcome = asked.tokens(rng)
        found[outcome] = found.get(outcome, 0.0) + rng.probability
        if not rng.next_path():
            return found


LAWS = [
    Law("augmented", temperature=1.0, eta=5.0),
    Law("augmented", temperature=0.7, eta="auto"),
    Law("augmented", temperature=1.3, eta=4.0, tail_rule="restore"),
    Law("augmented", temperature=1.0, eta=5.0, top_p=0.8, top_k=3),
    Law("target", temperature=1.0),
]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none"])
def test_the_output_follows_the_law_of_the_cut_drafter(law, proposer):
    asked = request(RemoteRequest, law, proposer)
    assert largest_difference(enumerated(asked), asked.expected()) < TOLERANCE


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_the_server_s_guesses_do_not_matter(share):
    asked = request(RemoteRequest, LAWS[0], "drafter", 3)
    assert largest_difference(enumerated(asked, share), asked.expected()) < TOLERANCE


@pytest.mark.parametrize("law", LAWS[:2], ids=str)
def test_a_server_that_draws_by_itself_moves_nothing(law):
    class Foreign(RemoteRequest):
        draws = False

    asked = request(Foreign, law, "drafter")
    assert largest_difference(enumerated(asked), asked.expected()) < TOLERANCE


def test_the_cut_law_is_another_law():
    asked = request(ToyRequest, LAWS[0], "drafter")
    asked.drafter = TableLM(2, VOCAB)
    assert largest_difference(request(RemoteRequest, LAWS[0], "drafter").expected(), asked.expected()) > 0.01


def test_a_local_drafter_that_is_cut_follows_the_same_law():
    asked = request(ToyRequest, LAWS[0], "drafter")
    assert isinstance(asked.drafter, CutTable)
    assert largest_difference(enumerated(asked), asked.expected()) < TOLERANCE
