"""Other engines: their tokens and times, and why one cannot run."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from rapid_integrations.benchmarks.openvino_peer import OpenVINO, gguf_file
from rapid_integrations.benchmarks.peers import PEERS, PeerSource, TimedTokens, open_peers
from rapid_integrations.errors import ConfigurationError
from tests.toys.models import EOS_ID, IM_END_ID, tiny_model

EOS = (EOS_ID, IM_END_ID)
PROMPT = [*range(60, 100)] * 3


def source(target="tiny", drafter=None, device="cpu", **options):
    loaded = []

    def load(name, dtype):
        loaded.append((name, dtype))
        return tiny_model("llama", 0 if name == "tiny" else 1).to(dtype)

    made = PeerSource(target, drafter, torch.device(device), load, warm_up_ids=PROMPT, **options)
    return made, loaded


def test_timed_tokens_count_what_came_after_the_first():
    assert TimedTokens((1, 2, 3, 4), 1.0, 0.5, first_tokens=2).decode_tps == 4
    assert TimedTokens((1,), 1.0, 0.0).decode_tps is None


def test_transformers_peers_share_one_target_and_write_the_same_text():
    made, loaded = source(drafter="other")
    names = ("transformers", "transformers_assisted", "transformers_lookup")
    peers, skipped = open_peers(names, made)
    assert list(peers) == list(names) and not skipped
    assert [name for name, _ in loaded] == ["tiny", "tiny", "other"]  # float32 and bfloat16, then the drafter
    outputs = [peer.generate(PROMPT, 12, EOS) for peer in peers.values()]
    assert len({output.token_ids for output in outputs}) == 1
    for output in outputs:
        assert output.first_token_s > 0 and output.first_tokens >= 1
        assert len(output.token_ids) <= 12
    assert all(peer.settings["dtype"] in ("float32", "bfloat16") for peer in peers.values())


def test_a_drafting_target_needs_no_assistant():
    peers, skipped = open_peers(["transformers_assisted"], source()[0])
    assert not peers and "--drafter" in skipped["transformers_assisted"]


def test_an_unknown_peer_is_refused():
    with pytest.raises(ConfigurationError, match="no peer is called 'vllm'; there are: " + ", ".join(PEERS)):
        open_peers(["vllm"], source()[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "tiny"}, "reads GGUF files, and tiny is not one"),
        ({"target": "m.gguf"}, "reads GGUF files, and m.gguf is not one"),
        ({"target": "m.gguf", "device": "cuda"}, "the other methods on cuda"),
    ],
)
def test_why_openvino_cannot_run(options, said):
    _, skipped = open_peers(["openvino"], source(**options)[0])
    assert said in skipped["openvino"]


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    (tmp_path / "m.gguf").touch()
    _, skipped = open_peers(["openvino"], source(str(tmp_path / "m.gguf"))[0])
    assert "pip install 'rapid-integrations[openvino]'" in skipped["openvino"]


def test_a_gguf_file_by_its_folder(tmp_path):
    (tmp_path / "m.gguf").touch()
    assert gguf_file(str(tmp_path)) == tmp_path / "m.gguf"
    (tmp_path / "n.gguf").touch()
    with pytest.raises(ConfigurationError, match="reads GGUF files"):
        gguf_file(str(tmp_path))


def test_a_file_that_openvino_refuses(tmp_path):
    pytest.importorskip("openvino_genai")
    (tmp_path / "m.gguf").write_bytes(b"no model")
    _, skipped = open_peers(["openvino"], source(str(tmp_path / "m.gguf"))[0])
    assert "cannot load m.gguf" in skipped["openvino"]


def test_what_openvino_is_asked_for(tmp_path, monkeypatch):
    """With a stand-in for its module: ids in, ids out, greedy, stopping at eos, the cache precision passed on."""
    asked = {}

    class Pipeline:
        def __init__(self, path, device, **properties):
            asked.update(path=path, device=device, properties=properties)

        def generate(self, inputs, config, streamer):
            asked.update(inputs=inputs, config=config)
            streamer.write(5)
            streamer.write([6, 7])
            streamer.end()

    genai = ModuleType("openvino_genai")
    genai.LLMPipeline, genai.GenerationConfig, genai.StreamerBase = Pipeline, SimpleNamespace, object
    genai.TokenizedInputs = lambda ids, mask: (ids, mask)
    genai.StreamingStatus = SimpleNamespace(RUNNING=0)
    genai.__version__ = "1"
    openvino = ModuleType("openvino")
    openvino.Tensor = lambda values: values.tolist()
    openvino.Core = lambda: SimpleNamespace(get_property=lambda device, name: "bf16")
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    monkeypatch.setitem(sys.modules, "openvino", openvino)
    (tmp_path / "m.gguf").touch()
    peer = OpenVINO.open(source(str(tmp_path / "m.gguf"), kv_cache="f32")[0])
    output = peer.generate([1, 2], 9, (3, 4))
    assert output.token_ids == (5, 6, 7) and output.first_tokens == 1 and output.decode_tps > 0
    assert asked["inputs"] == ([[1, 2]], [[1, 1]]) and asked["device"] == "CPU"
    assert asked["properties"]["KV_CACHE_PRECISION"] == "f32"
    assert asked["config"].stop_token_ids == {3, 4} and not asked["config"].do_sample
    assert asked["config"].max_new_tokens == 9 and peer.settings["kv_cache"] == "f32"
