"""`rapid bench memory`: the known parts are the tensors' sizes, and the parts sum to the peak."""

import pytest
import torch

from rapid_integrations.benchmarks import peak_memory
from rapid_integrations.benchmarks.memory import PARTS, MemoryResult, Peak
from rapid_integrations.benchmarks.peak_memory import PeakMemory
from tests.toys.models import tiny_model
from tests.unit.benchmarks.conftest import summary

CPU = torch.device("cpu")
MIB = 2**20


def test_the_command(bench, tmp_path):
    picture = tmp_path / "plot.png"
    found = bench(
        *("memory", "--contexts", "2400,1200", "--new-tokens", "8", "--drafter", "./smaller"),
        *("--plot", str(picture)),
    )
    figures = summary(found)
    assert [peak["prompt_tokens"] for peak in figures["peaks"]] == [1199, 2399]
    sizes = {
        name: sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
        for name, model in (
            ("target", tiny_model("llama", 0)),
            ("drafter", tiny_model("llama", 1, num_hidden_layers=1)),
        )
    }
    for peak in figures["peaks"]:
        for role in ("target", "drafter"):  # a model that was checked before holds no buffer of rotary frequencies
            assert 0 <= sizes[role] - peak[f"weights_{role}"] <= 64
        capacity = -(-(peak["prompt_tokens"] + 8) // 512) * 512
        assert peak["kv_target"] == capacity * 2 * 2 * 8 * 2 * 4  # keys and values, heads, width, layers, float32
        assert peak["kv_target"] < peak["kv_shared"] <= 1.5 * peak["kv_target"]  # eight questions, one document
        assert 0 < peak["kv_drafter"] < peak["kv_target"] and peak["embedder"] > 0
        whole = sum(peak[part] for part in PARTS)
        decoding = whole - peak["activations_prefill"] + peak["activations_decode"]
        assert peak["peak"] == max(whole, decoding)
    assert set(figures["bytes_per_token_of_context"]) >= {"kv_target", "activations_prefill"}
    assert "Peak memory" in found.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_errors_are_taught(bench):
    result = bench("memory", "--contexts", "many")
    assert result.exit_code == 1 and "--contexts='many'" in result.stderr


def _peak(prompt_tokens, activations):
    return Peak(prompt_tokens, 0, 1, 0, 10 * prompt_tokens, 0, 1, 1, activations, 0, 0, 0)


@pytest.mark.parametrize(("activations", "bounded"), [((500, 600), True), ((500, 500_000), False)])
def test_what_is_kept_of_each_token_in_each_layer_is_found(activations, bounded):
    result = MemoryResult(
        "t", "d", "", {}, 64, [_peak(100, 0), _peak(2000, activations[0]), _peak(4000, activations[1])]
    )
    assert result.bounded is bounded
    assert result.per_token("kv_target") == 10
    assert result.per_token("activations_prefill") == (activations[1] - activations[0]) / 2000
    result.peaks.pop()
    assert result.bounded is None and result.summary()["bytes_per_token_of_context"]["kv_target"] is None


@pytest.mark.parametrize("kernel", [True, False])
def test_a_peak_outlives_what_caused_it(monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr(PeakMemory, "_kernel_forgets", lambda self: False)
    memory = PeakMemory(CPU)
    try:
        assert (memory.source == "sampled resident set") or kernel
        before = memory.now()
        memory.reset()
        for _ in range(3):  # long enough to be sampled
            torch.ones(16 * MIB).sum()
        peak = memory.peak()
        assert peak - before > 50 * MIB
        memory.now()
        memory.reset()
        assert memory.peak() < peak - 30 * MIB
    finally:
        memory.close()


def test_a_kernel_that_keeps_its_peak_is_sampled(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "_CLEAR_REFS", tmp_path / "no" / "clear_refs")
    memory = PeakMemory(CPU)
    memory.close()
    assert memory.source == "sampled resident set"
