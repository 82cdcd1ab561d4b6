"""Distributions for hypothesis to choose from, as float32 tensors."""

import torch
from hypothesis import strategies as st
from torch import Tensor


def distributions(size: int = 5, *, zeros: bool = True) -> st.SearchStrategy[Tensor]:
    """Return a strategy for (size,) distributions, some of whose entries are zero unless told otherwise."""
    weight = st.floats(1e-4, 1.0)
    if zeros:
        weight = st.one_of(st.just(0.0), weight)
    return st.lists(weight, min_size=size, max_size=size).filter(lambda w: sum(w) > 0).map(_normalised)


def logits(size: int = 5) -> st.SearchStrategy[Tensor]:
    """Return a strategy for (size,) logits."""
    return st.lists(st.floats(-8.0, 8.0, width=32), min_size=size, max_size=size).map(torch.tensor)


def _normalised(weights: list[float]) -> Tensor:
    tensor = torch.tensor(weights, dtype=torch.float64)
    return (tensor / tensor.sum()).float()
