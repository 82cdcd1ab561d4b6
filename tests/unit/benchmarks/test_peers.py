"""Other engines: their tokens and times, and why one cannot run."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch

from rapid_integrations.benchmarks.gguf_target import gguf_file
from rapid_integrations.benchmarks.llama_cpp_peer import LlamaCpp
from rapid_integrations.benchmarks.openvino_peer import OpenVINO
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

    made = PeerSource(
        target, drafter, torch.device(device), load, warm_up_ids=PROMPT, threads=1, context_tokens=200, **options
    )
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


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("openvino", "openvino_genai", "openvino"), ("llama_cpp", "xllamacpp", "llama-cpp")],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "m.gguf").touch()
    _, skipped = open_peers([name], source(str(tmp_path / "m.gguf"))[0])
    assert f"pip install 'rapid-integrations[{extra}]'" in skipped[name]


@pytest.mark.process
def test_peers_of_other_libraries_import_no_torch():
    code = (
        "import sys; from rapid_integrations.benchmarks import peers, peer_process; "
        "[peers.peer_class(name) for name in ('openvino', 'llama_cpp')]; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("name", ["openvino", "llama_cpp"])
def test_who_reads_gguf_files_says_so(name):
    _, skipped = open_peers([name], source("tiny")[0])
    assert "reads GGUF files, and tiny is not one" in skipped[name]


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
    genai.SchedulerConfig = SimpleNamespace
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
    assert asked["properties"]["KV_CACHE_PRECISION"] == "f32" and asked["properties"]["INFERENCE_NUM_THREADS"] == 1
    assert asked["properties"]["scheduler_config"].enable_prefix_caching is False
    assert asked["config"].stop_token_ids == {3, 4} and not asked["config"].do_sample
    assert asked["config"].max_new_tokens == 9 and peer.settings["kv_cache"] == "f32"


class Slots(BaseHTTPRequestHandler):
    posted: ClassVar[list] = []

    def do_POST(self):
        self.posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *said):
        pass


def test_what_llama_cpp_is_asked_for(tmp_path, monkeypatch):
    """With a stand-in for its module: one slot, flash attention, the threads, ids in and out, its own figures kept."""
    asked = {}

    class Server:
        listening_address = "http://127.0.0.1:9"

        def __init__(self, settings):
            asked["settings"] = settings

        def handle_completions(self, body, note):
            asked["body"] = json.loads(body)
            if len(asked["body"]["prompt"]) > 3:
                assert note(json.dumps({"error": {"message": "too long"}}))
                return
            assert not note(json.dumps({"choices": [{"logprobs": {"content": [{"id": 5}]}}]}))
            assert note(json.dumps({"choices": [{"logprobs": {"content": [{"id": 3}]}}]}))  # an end token
            note(json.dumps({"choices": [], "timings": {"prompt_ms": 0.001, "cache_n": 2}}))

    module = ModuleType("xllamacpp")
    module.Server, module.get_system_info, module.__version__ = Server, lambda: "CPU : AVX2 = 1", "1"
    module.llama_flash_attn_type = SimpleNamespace(LLAMA_FLASH_ATTN_TYPE_ENABLED="on")
    module.CommonParams = lambda: SimpleNamespace(
        model=SimpleNamespace(), cpuparams=SimpleNamespace(), cpuparams_batch=SimpleNamespace()
    )
    monkeypatch.setitem(sys.modules, "xllamacpp", module)
    (tmp_path / "m.gguf").touch()
    peer = LlamaCpp.open(source(str(tmp_path / "m.gguf"), files=tmp_path, prefix_caching=True)[0])
    output = peer.generate([1, 2], 9, (3, 4))
    assert output.token_ids == (5, 3) and output.prefill_s == pytest.approx(1e-6) and output.cached_tokens == 2
    settings, body = asked["settings"], asked["body"]
    assert settings.cpuparams.n_threads == settings.cpuparams_batch.n_threads == 1
    assert (settings.n_parallel, settings.n_ctx, settings.flash_attn_type) == (1, 200, "on")
    assert settings.slot_save_path == f"{tmp_path}/" and peer.settings["built_for"] == "CPU : AVX2 = 1"
    assert (body["prompt"], body["n_predict"], body["temperature"], body["cache_prompt"]) == ([1, 2], 9, 0, True)
    with pytest.raises(ConfigurationError, match="refused the prompt: too long"):
        peer.generate([1, 2, 3, 4], 9, (3,))
    listening = HTTPServer(("127.0.0.1", 0), Slots)
    Server.listening_address = f"http://127.0.0.1:{listening.server_port}"
    answering = threading.Thread(target=listening.serve_forever)
    answering.start()
    try:
        peer.keep(tmp_path)
        peer.restore(tmp_path)
    finally:
        listening.shutdown()
        answering.join()
        listening.server_close()
    assert Slots.posted == [(f"/slots/0?action={action}", {"filename": "slot.bin"}) for action in ("save", "restore")]
    with pytest.raises(ConfigurationError, match=r"slot was not written or read \(save\)"):
        peer.keep(tmp_path)  # nobody listens any more
