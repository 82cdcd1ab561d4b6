"""Answers whose laws, draws and verdicts the kernels compute, against those of the host."""

import pytest

from rapid_integrations.kernels.cuda.ops import TritonOps
from rapid_integrations.sampling import TorchOps
from tests.unit.decoding.test_device_rounds import IDS, LAWS, Decisions, result_of, toy


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
