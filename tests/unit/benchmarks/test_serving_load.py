"""benchmarks/serving_load.py: what it asks, and what it says of what it has measured."""

import importlib.util
import random
import sys

import pytest

from tests.toys.repository import ROOT
from tests.toys.served import running, tiny_engine


@pytest.fixture(scope="module")
def load():
    spec = importlib.util.spec_from_file_location("serving_load", ROOT / "benchmarks" / "serving_load.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_load"] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["serving_load"]


def test_documents_share_no_beginning(load):
    texts = load.documents()
    assert len({text[:40] for text in texts}) == len(texts) == load.DOCUMENTS
    assert [len(text) for text in texts] == sorted(len(text) for text in texts)
    asked = {load.body(random.Random(seed), texts, seed)["messages"][0]["content"] for seed in range(20)}
    assert len(asked) == 20 and all(any(each.startswith(text) for text in texts) for each in asked)


def test_figures_are_those_of_the_requests(load):
    run = load.Run("rapid", "m", clients=2, seconds=(2.0, 4.0), processor=(1.0, 8.0), load=(0.5, 1.5))
    run.in_turn = [load.Asked(0, 0.0, 0.5, 2.0, 10)]
    run.together = [
        load.Asked(0, 0.0, 1.0, 2.0, 12),
        load.Asked(0, 2.0, 2.5, 4.0, 4, left=True),
        load.Asked(1, 0.0, 3.0, 4.0, 8),
        load.Asked(1, 0.0, failure="500"),
    ]
    run.memory = [(0.0, 1 << 20), (2.0, 3 << 20), (4.0, 2 << 20)]
    found = list(load.figures(run).values())
    assert found[1] == "3 (1); 1"
    assert found[2:6] == ["6.0", "5.0", "3.0", "10.0"]
    assert found[6] == "1.0, 1.0, 3.0" and found[8] == "1, 2" and found[9] == "1, 3, 2, 3"


async def test_a_server_is_asked_and_left(load, tmp_path):
    pytest.importorskip("uvicorn")
    from rapid_integrations.server.app import create_app
    from rapid_integrations.server.settings import ServerSettings

    with tiny_engine() as engine:
        with running(create_app(engine, ServerSettings(files_dir=tmp_path, model_name="model"))) as address:
            sent = load.body(random.Random(0), ["A short document."], 0) | {"max_tokens": 8}
            async with load.httpx.AsyncClient(base_url=address, timeout=60) as client:
                whole, left, wrong = (load.Asked(0, 0.0) for _ in range(3))
                await load.ask(client, sent | {"logit_bias": {"257": -100, "259": -100}}, None, whole, lambda: 1.0)
                await load.ask(client, sent | {"logit_bias": {"257": -100, "259": -100}}, 1, left, lambda: 1.0)
                await load.ask(client, sent | {"model": "other"}, None, wrong, lambda: 1.0)
    assert (whole.tokens, whole.left, whole.failure) == (8, False, None) and whole.first == 1.0
    assert left.left and left.failure is None
    assert wrong.failure.startswith("404")
