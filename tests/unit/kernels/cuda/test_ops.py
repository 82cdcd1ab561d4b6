"""The distributions of a request on a GPU, one position at a time, and its rounds as a whole."""

import pytest
import torch

from rapid_integrations.kernels.cuda.ops import TritonOps
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.sampling import Law, TorchOps
from tests.toys.device_rounds import IDS, LAWS, Decisions, result_of, toy

PROCESSOR = torch.device("cpu")


def test_they_are_chosen_where_the_kernels_serve(monkeypatch):
    monkeypatch.setenv("RAPID_CUDA", "interpret")
    assert type(ops_for(PROCESSOR, PROCESSOR)) is TritonOps
    assert type(ops_for(PROCESSOR, torch.device("mps"))) is TorchOps
    monkeypatch.setenv("RAPID_CUDA", "0")
    assert type(ops_for(PROCESSOR)) is not TritonOps


def test_laws_and_draws_are_those_of_the_reference():
    z, d = 3 * torch.randn(2, 200, generator=torch.Generator().manual_seed(0))
    for temperature in (0.0, 0.7):
        laws = [Law("augmented", temperature, ops=ops).form(z, d) for ops in (TritonOps(), TorchOps())]
        torch.testing.assert_close(*laws, atol=2e-6, rtol=1e-3)
    for share in (0.0, 0.3, 0.999999):
        assert TritonOps().draw(laws[0], share) == TorchOps().draw(laws[0], share)


@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup", "draft_lm"])
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_an_answer_is_the_hosts_token_for_token_and_count_for_count(monkeypatch, law, proposer):
    decisions = Decisions(monkeypatch)
    for seed in (0, 1):
        ends = frozenset({4}) if seed else frozenset()
        request = toy(law, proposer, 4, seed, shared=seed == 0, eos=ends, max_new_tokens=6)
        assert result_of(request, TritonOps(), seed) == result_of(request, TorchOps(), seed)
    assert decisions.rounds > 1


def test_a_draft_that_is_written_on_the_device_ends_with_the_answer():
    for seed in range(2):
        request = toy(LAWS[2 + seed % 2], length=6, seed=seed, eos=frozenset({1, 4}), max_new_tokens=12)
        assert result_of(request, TritonOps(), seed) == result_of(request, TorchOps(), seed)
