"""A process of `rapid bench question`, run within this one."""

import time

import pytest

from rapid_integrations.benchmarks.waits import PARTS
from rapid_integrations.cli.question_child import main
from rapid_integrations.config import SpeculationConfig
from tests.toys.embedding_model import save_tiny_embedder
from tests.toys.models import EOS_ID, byte_tokenizer, tiny_model, words

ALONE = SpeculationConfig(law="target", proposer="none").model_dump_json()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("child")
    tiny_model("llama", 0, max_position_embeddings=8192).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    save_tiny_embedder(folder / "embedder")
    return folder


@pytest.fixture
def ask(folder, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # it sets it otherwise
    monkeypatch.setenv("RAPID_HOME", str(folder / "home"))
    engine = {"target": str(folder / "model"), "embedder": str(folder / "embedder"), "dtype": "float32"}

    def run(method, run, files=None, speculation=ALONE, **more):
        told = {
            "method": method,
            "run": run,
            "engine": engine,
            "target": engine["target"],
            "drafter": None,
            "document": words(1, 400),
            "questions": ["where is the cat?", "what ran far?"],
            "prompts": [[*range(60, 100)] * 3, [*range(60, 100)] * 2],
            "shared": [*range(60, 100)],
            "warm_up": [70, 80],
            "eos": [EOS_ID],
            "new_tokens": 4,
            "speculation": speculation,
            "device": "cpu",
            "dtype": "float32",
            "threads": 1,
            "kv_cache": None,
            "context_tokens": 200,
            "files": files,
        }
        return main(told | more, time.perf_counter())

    return run


@pytest.mark.parametrize("speculation", [ALONE, SpeculationConfig().model_dump_json()], ids=["target", "rapid"])
def test_this_engine(ask, tmp_path, speculation):
    begun = time.perf_counter()
    waits = {}
    for run in ("cold", "warm", "ahead", "restart"):
        files = str(tmp_path) if run in ("ahead", "restart") else None
        waits |= ask("rapid", run, files, speculation)["waits"]
    assert time.perf_counter() - begun > sum(wait["first_token_s"] for wait in waits.values())
    assert set(waits) == {"cold", "first", "second", "ahead", "restart"}
    for stage, wait in waits.items():
        assert set(wait["parts"]) == set(PARTS) - (set() if stage in ("cold", "restart") else {"imports", "load"})
        assert 0 < sum(wait["parts"].values()) <= 1.02 * wait["first_token_s"] <= 1.02 * wait["total_s"]
        assert wait["first_token_cpu_s"] > 0
        cached = wait["cached_tokens"] / wait["prompt_tokens"]
        assert cached == 0 if stage in ("cold", "first") else cached > 0.9
    assert waits["cold"]["parts"]["load"] > 0
    assert (waits["cold"]["parts"]["drafter"] > 0) == (speculation != ALONE)


def test_a_peer_gets_the_tokens(ask):
    cold, warm = ask("transformers", "cold"), ask("transformers", "warm")
    assert cold["settings"] == warm["settings"] == {"dtype": "float32"}
    assert set(cold["waits"]["cold"]["parts"]) == {"imports", "load", "prefill"}
    assert {stage: wait["prompt_tokens"] for stage, wait in warm["waits"].items()} == {"first": 120, "second": 80}
    for wait in (cold["waits"]["cold"], *warm["waits"].values()):
        assert 0 < sum(wait["parts"].values()) == pytest.approx(wait["first_token_s"])
        assert wait["tokens"] == 4 and wait["total_s"] > wait["first_token_s"]


def test_why_a_peer_cannot_run(ask, tmp_path):
    assert "--drafter" in ask("transformers_assisted", "cold")["failed"]
    assert "missing" in ask("rapid", "cold", engine={"target": str(tmp_path / "missing")})["failed"]
