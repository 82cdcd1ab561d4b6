import numpy as np
import pytest

from rapid_integrations.compression import index as module
from rapid_integrations.compression.index import ChunkIndex
from rapid_integrations.errors import ConfigurationError


@pytest.fixture
def vectors():
    drawn = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_numpy_and_faiss_find_the_same(vectors, monkeypatch):
    owners = np.arange(40) // 3
    few = ChunkIndex(vectors, owners, 15)  # the last chunk has no window
    monkeypatch.setattr(module, "_FEW", 0)
    many = ChunkIndex(vectors, owners, 15)
    for query in (vectors[7], -vectors[3], vectors.mean(axis=0)):
        assert few.scores(query) == pytest.approx(many.scores(query), abs=1e-6)
    assert few.scores(vectors[7])[7 // 3] == pytest.approx(1.0) and few.scores(vectors[7])[14] == -1.0


@pytest.mark.parametrize("most", [4096, 0])
def test_a_window_of_nan_is_not_found(vectors, monkeypatch, most):
    monkeypatch.setattr(module, "_FEW", most)
    vectors[0] = np.nan
    scores = ChunkIndex(vectors[:2], np.array([0, 1]), 2).scores(vectors[1])
    assert scores.tolist() == pytest.approx([-1.0, 1.0])


@pytest.mark.parametrize("most", [4096, 0])
def test_a_question_of_another_width_is_an_error(vectors, monkeypatch, most):
    monkeypatch.setattr(module, "_FEW", most)
    with pytest.raises(ConfigurationError, match="a vector of 3 numbers, and the document's passages vectors of 16"):
        ChunkIndex(vectors, np.arange(40), 40).scores(np.ones(3, dtype=np.float32))
