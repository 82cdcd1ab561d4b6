"""Subsets of passages: one passage of each cluster, so that each draft sees every perspective once. Pure.

The paper clusters by an embedder that reads the question, too, and draws at random. Here passages are clustered by
their words (k-means over tf-idf vectors), which needs no model, and the choice follows the order of the passages. So
the subsets depend on the passages alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, product

import numpy as np

from rapid_integrations.compression.word_index import index_terms

_ROUNDS = 20  # of k-means; a few passages settle after three or four


def subsets_of(passages: Sequence[str], subsets: int, size: int) -> list[tuple[int, ...]]:
    """Return at most `subsets` different subsets of the passages, as ascending positions.

    Each has one passage of each of `size` clusters. The first has the first passage of each cluster, the second the
    second ones, and so on; a cluster that has no further passage begins again. If there are no more than `size`
    passages, the only subset has all of them.
    """
    if len(passages) <= size:
        return [tuple(range(len(passages)))]
    clusters = clusters_of(passages, size)
    return list(islice(_different(clusters), subsets))


def clusters_of(passages: Sequence[str], number: int) -> list[list[int]]:
    """Return at most `number` clusters of the positions of `passages`, none empty, by spherical k-means.

    The first passage is the first centre. Each further one is the passage that is least like the centres before.
    """
    vectors = _tf_idf(passages)  # (n_passages, n_terms)
    centres = [0]
    likeness = vectors @ vectors[0]  # (n_passages,), to the nearest centre
    while len(centres) < number:
        likeness[centres] = np.inf
        centres.append(int(np.argmin(likeness)))
        likeness = np.maximum(likeness, vectors @ vectors[centres[-1]])
    means = vectors[centres]  # (number, n_terms)
    owners = np.argmax(vectors @ means.T, axis=1)
    for _ in range(_ROUNDS):
        means = np.stack([_unit(vectors[owners == each].sum(axis=0)) for each in range(number)])
        moved = np.argmax(vectors @ means.T, axis=1)
        if (moved == owners).all():
            break
        owners = moved
    clusters = [np.flatnonzero(owners == each).tolist() for each in range(number)]
    return sorted(cluster for cluster in clusters if cluster)


def _different(clusters: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Yield every way to take one of each cluster, once: first side by side, then by how far back they reach."""
    longest = max(len(cluster) for cluster in clusters)
    given = set()
    for turn in range(longest):
        chosen = tuple(sorted(cluster[turn % len(cluster)] for cluster in clusters))
        given.add(chosen)
        yield chosen
    ranges = [range(len(cluster)) for cluster in clusters]
    for places in islice(product(*ranges), 10_000):  # of a few clusters; more than anybody drafts
        chosen = tuple(sorted(cluster[place] for cluster, place in zip(clusters, places, strict=True)))
        if chosen not in given:
            given.add(chosen)
            yield chosen


def _tf_idf(passages: Sequence[str]) -> np.ndarray:
    """Return the passages' unit vectors (n_passages, n_terms); zeros for a passage without words of its own."""
    counts = [Counter(index_terms(passage)) for passage in passages]
    frequency = Counter(term for each in counts for term in each)
    columns = {term: column for column, term in enumerate(frequency)}
    vectors = np.zeros((len(passages), max(1, len(columns))))
    for row, each in zip(vectors, counts, strict=True):
        for term, count in each.items():
            row[columns[term]] = (1 + np.log(count)) * np.log(len(passages) / frequency[term])
    return np.stack([_unit(row) for row in vectors])


def _unit(vector: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length) if length else vector
