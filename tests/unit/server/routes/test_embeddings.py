"""/v1/embeddings: the vectors of the engine's own embedder."""

import base64

import numpy as np
import pytest

from tests.toys.embedder import HashEmbedder
from tests.toys.models import words
from tests.toys.served import client_of, running, tiny_engine
from tests.toys.server_app import HELLO, address, app_of, client, engine  # noqa: F401


def embedded(client, given, **fields):  # noqa: F811
    return client.post("/v1/embeddings", json={"model": "hash", "input": given, **fields})


def vectors(answer):
    assert answer.status_code == 200, answer.text
    return np.array([each["embedding"] for each in answer.json()["data"]], dtype=np.float32)


def test_texts_get_the_vectors_of_the_embedder_in_their_order(client):  # noqa: F811
    texts = [words(seed, 5 + seed) for seed in range(40)]  # several slices
    answer = embedded(client, texts)
    np.testing.assert_allclose(vectors(answer), HashEmbedder().embed(texts), atol=1e-6)
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "hash")
    assert [(each["object"], each["index"]) for each in body["data"]] == [("embedding", n) for n in range(40)]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 40
    assert np.array_equal(vectors(embedded(client, texts[0])), vectors(answer)[:1])


def test_base64_holds_the_same_numbers(client):  # noqa: F811
    numbers = vectors(embedded(client, ["a cat", "a dog"], encoding_format="float"))
    coded = embedded(client, ["a cat", "a dog"], encoding_format="base64").json()["data"]
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), dtype="<f4") for each in coded]
    assert np.array_equal(decoded, numbers)


def test_nothing_of_a_long_text_is_left_out(client):  # noqa: F811
    begin, end = words(1, 300), words(2, 300)  # two windows and more
    embedder = HashEmbedder()
    windows = embedder.split(begin + end)
    assert len(windows) > 1
    mean = embedder.embed(windows).mean(axis=0)
    (found,) = vectors(embedded(client, begin + end))
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"model": "tiny"}, 404, "model_not_found", "'hash'"),
        ({"input": [1, 2]}, 400, "invalid_value", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2]]}, 400, "invalid_value", "token ids"),
        ({"input": []}, 400, "invalid_value", "input"),
        ({"input": ["a", ""]}, 400, "invalid_value", "a text is empty"),
        ({"input": None}, 400, "invalid_value", "input"),
        ({"dimensions": 8}, 400, "invalid_value", "64 numbers"),
        ({"encoding_format": "int8"}, 400, "invalid_value", "base64"),
        ({"inputs": "a"}, 400, "unknown_parameter", "'input'"),
    ],
)
def test_what_is_refused(client, fields, status, code, said):  # noqa: F811
    answer = embedded(client, **{"given": "a", **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code) and said in error["message"]


def test_it_is_a_model_of_its_own(client):  # noqa: F811
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny", "hash"]
    assert client.get("/v1/models/hash").json()["rapid"] == {"chat": False, "embeddings": True}
    refused = client.post("/v1/chat/completions", json={"model": "hash", "messages": HELLO})
    assert refused.status_code == 404 and "only makes embeddings" in refused.json()["error"]["message"]


def test_a_compressor_of_the_callers_own_lends_no_embedder(app_of, engine):  # noqa: F811
    class Own:
        def compress(self, *_):
            raise NotImplementedError

    with tiny_engine(compressor=Own()) as other, running(app_of(engine=other)) as found, client_of(found) as asks:
        assert [model["id"] for model in asks.get("/v1/models").json()["data"]] == ["tiny"]
        assert embedded(asks, "a").json()["error"]["code"] == "no_embedder"
