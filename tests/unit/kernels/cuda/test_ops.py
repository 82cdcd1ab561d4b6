"""The distributions of a request on a GPU, one position at a time."""

import torch

from rapid_integrations.kernels.cuda.ops import TritonOps
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.sampling import Law, TorchOps

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
