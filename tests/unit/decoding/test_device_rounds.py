"""Rounds that are decided where the logits lie: what they give, and how often the host waits for that."""

from dataclasses import replace

import pytest
import torch

from rapid_integrations.decoding import device_rounds
from rapid_integrations.decoding.proposal import Proposal, Proposer
from rapid_integrations.errors import NotANumberError
from rapid_integrations.proposers.suite.table_model import SharedTableLM, TableLM
from rapid_integrations.sampling import Law, Randomness, TorchOps
from tests.toys.device_rounds import IDS, LAWS, ON_DEVICE, Decisions, V, decoded, result_of, toy
from tests.toys.enumerated_requests import Stubborn
from tests.toys.fake_gpu import CUDA, HostWaitsError, fake_gpu


def same(request, seed=1):
    expected = result_of(request, TorchOps(), seed)
    assert result_of(request, ON_DEVICE, seed) == expected
    return expected


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup", "draft_lm", "hybrid"])
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_an_answer_is_the_hosts_token_for_token_and_count_for_count(monkeypatch, law, proposer):
    decisions, rounds = Decisions(monkeypatch), 0
    for seed in (0, 1, 4, 5):
        more = {"eos": frozenset({4}) if seed % 3 else frozenset(), "shared": seed % 2 == 0}
        more |= {"repetition_penalty": 1.3} if seed == 4 else {"frequency_penalty": 0.4} if seed == 5 else {}
        found = same(toy(law, proposer, (1, 3, 6)[seed % 3], seed, **more), seed)
        rounds += found[3][0]
    assert decisions.rounds == rounds


def test_a_draft_that_is_written_on_the_device_ends_with_the_answer(monkeypatch):
    """The device writes on behind the end, which the host does not; nothing of that is counted, drawn or kept."""
    ended = 0
    for seed in range(12):
        request = toy(LAWS[2 + seed % 2], length=6, seed=seed, eos=frozenset({1, 4}), max_new_tokens=12)
        tokens, _, reason, (_, drafted, _, _), *_ = same(request, seed)
        ended += reason == "eos" and drafted % 6 != 0
    assert ended > 3


def tree(token_ids, parents):
    class Tree(Proposer):
        def propose(self, limit, rng):
            return Proposal(token_ids, source="tree", parents=parents) if limit >= 2 else Proposal(())

        def commit(self, token_ids):
            pass

    return lambda asked: Tree()


@pytest.mark.parametrize("law", LAWS[:4], ids=IDS[:4])
def test_trees_are_decided_by_the_host(monkeypatch, law):
    decisions = Decisions(monkeypatch)
    rounds = same(toy(law, tree((0, 1, 2, 3), (-1, -1, 0, 1))))[3][0]
    assert 0 < decisions.rounds < rounds  # the last round has no tree


@pytest.mark.parametrize("law", [Law("paper", temperature=1.0, eta=2.0), Law("lenient", leniency=0.3)], ids=str)
def test_the_other_laws_are_the_hosts(monkeypatch, law):
    decisions = Decisions(monkeypatch)
    same(toy(law))
    assert decisions.rounds == 0


@pytest.mark.parametrize("law", LAWS[:4], ids=IDS[:4])
def test_a_constraint_is_the_hosts(monkeypatch, law):
    decisions = Decisions(monkeypatch)
    found = same(toy(law, "hybrid", allowed_after=lambda output: {0, 2, 5} if len(output) % 2 else {1, 3, 4}))
    assert decisions.rounds == 0 and all((token in (0, 2, 5)) == at % 2 for at, token in enumerate(found[0]))


def test_drawn_and_copied_tokens_in_one_chain_are_the_hosts(monkeypatch):
    class Mixed(Stubborn):
        def propose(self, limit, rng):
            proposal = super().propose(limit, rng)
            return replace(proposal, probs=[None, *proposal.probs[1:]]) if len(proposal.token_ids) > 1 else proposal

    decisions = Decisions(monkeypatch)
    rows = [[0.3, 0.1, 0.2, 0.2, 0.1, 0.1], [0.0, 0.2, 0.2, 0.2, 0.2, 0.2]]
    rounds = same(toy(LAWS[2], lambda asked: Mixed(rows)))[3][0]
    assert 0 < decisions.rounds < rounds


class Damaged(TableLM):
    """Computes NaN from its sixth token on."""

    name = "damaged"

    def read(self, token_ids, cache, keep):
        logits = super().read(token_ids, cache, keep)
        return logits * float("nan") if cache.length > 8 else logits


@pytest.mark.pairs
@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup"])
@pytest.mark.parametrize("whose", ["target", "drafter"])
@pytest.mark.parametrize("law", LAWS[1:4:2], ids=IDS[1:4:2])
def test_nan_is_reported_with_the_verdict(law, whose, proposer):
    request = replace(toy(law, proposer), **{whose: Damaged(1, V)})
    with pytest.raises(NotANumberError, match="damaged"):
        result_of(request, ON_DEVICE)


def test_nan_is_reported_in_a_round_of_a_tree():
    request = replace(toy(LAWS[1], tree((0, 1), (-1, -1))), target=Damaged(1, V))
    with pytest.raises(NotANumberError, match="damaged"):
        result_of(request, ON_DEVICE)


# --- waits ----------------------------------------------------------------------------------------------------------


class FakeLM(SharedTableLM):
    """A model on the GPU that is not there. Its logits have no numbers."""

    def __init__(self, seed, device=CUDA, ends=None):
        super().__init__(seed, V)
        self.device, self._ends = device, ends or device

    def forward(self, rows):
        for each in rows:
            assert each.token_ids.device == self.device and (each.of_prompt or not each.check)
            each.cache.advance(each.count)
        return [torch.empty(each.keep, self.vocab_size, device=self._ends) for each in rows]


class Halves(Randomness):
    """Makes no tensor, which would have no numbers."""

    def _more(self):
        return [0.5] * 8


class FakeEvent:
    """Has happened when it is asked for."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        pass

    def query(self):
        return True

    def elapsed_time(self, other):
        return 2.0


class Scripted:
    """Says what a verdict's numbers are, and counts how often the host asks."""

    def __init__(self, whole, begin):
        self.waits, self._whole, self.begin = 0, whole, begin

    def __call__(self, verdict):
        self.waits += 1
        count = verdict.shape[0] - 7
        assert verdict.device.type == "cuda"
        return [count if self._whole else max(0, count - 1), 2, 1, 0, 0, 0, count, *([3] * count)]


@pytest.fixture
def clock(monkeypatch):
    """Return what scripts the verdicts of a GPU that is not there; from `begin` on its clock is not asked."""
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr("rapid_integrations.decoding.reader.prefill_chunk", lambda device: 4096)

    def never(device):
        raise HostWaitsError("the clock")

    def scripted(whole):
        verdicts = Scripted(whole, begin=lambda: monkeypatch.setattr(torch.cuda, "synchronize", never))
        monkeypatch.setattr(device_rounds, "numbers_of", verdicts)
        return verdicts

    return scripted


@pytest.mark.in_a_hurry(3)
@pytest.mark.parametrize(
    ("law", "proposer", "together", "repetition"),
    [
        (LAWS[0], "none", True, 1.0),
        (LAWS[0], "drafter", False, 1.0),
        (LAWS[1], "prompt_lookup", True, 1.0),
        (LAWS[2], "prompt_lookup", True, 1.2),
        (LAWS[2], "draft_lm", False, 1.0),
        (LAWS[3], "drafter", True, 1.0),
        (LAWS[4], "drafter", False, 1.0),
        (LAWS[4], "prompt_lookup", False, 1.2),
        (LAWS[4], "draft_lm", False, 1.0),
    ],
    ids=lambda each: f"{each.kind} T={each.temperature} eta={each.eta}" if isinstance(each, Law) else str(each),
)
def test_a_round_waits_once(clock, law, proposer, together, repetition):
    """Everything else that would make the host wait raises: numbers of tensors, copies from the host, the clock."""
    # If a drafter of its own has written a draft that stands, it reads on: that takes another wait.
    scripted = clock(whole=together or law.kind == "target" or proposer != "drafter")
    with fake_gpu():
        target = FakeLM(0)
        models = target, target if together else FakeLM(1), FakeLM(2)
        recorder = decoded(models, law, proposer, Halves(0), repetition, begin=scripted.begin)
    assert recorder.rounds == scripted.waits > 1
    assert recorder.seconds["verify"] == pytest.approx(2e-3 * recorder.rounds)


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "draft_lm"])
def test_models_on_several_gpus_wait_once_and_mix_no_devices(clock, proposer):
    """The target begins on one GPU and ends on the other, as `device_map` has it; the drafter is on the other one."""
    scripted, other = clock(whole=proposer != "drafter"), torch.device("cuda", 1)
    with fake_gpu():
        models = FakeLM(0, CUDA, other), FakeLM(1, other), FakeLM(2, other, CUDA)
        repetition = 1.2 if proposer == "prompt_lookup" else 1.0
        recorder = decoded(models, LAWS[4], proposer, Halves(0), repetition, begin=scripted.begin)
    assert recorder.rounds == scripted.waits > 1
