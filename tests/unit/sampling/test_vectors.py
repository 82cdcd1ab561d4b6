"""Vectors as wide as a vocabulary, on one thread of a processor or wherever they are."""

import torch

from rapid_integrations.sampling.vectors import best, point_mass, scaled, surplus, total


def test_vectors():
    like = torch.tensor([0.5, float("nan"), float("inf"), -2.0])
    assert point_mass(2, like).tolist() == [0.0, 0.0, 1.0, 0.0] and like[3] == -2.0
    assert best(torch.tensor([1.0, 3.0, 3.0])) == 1 and total(torch.tensor([1.0, 0.5])) == 1.5
    assert scaled(torch.tensor([1.0, 2.0]), 0.5).tolist() == [0.5, 1.0]
    assert surplus(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.5])).tolist() == [0.0, 1.5]


def test_vectors_on_another_device():
    there = torch.zeros(3, device="meta")
    for made in (point_mass(1, there), scaled(there, 2.0), surplus(there, there)):
        assert made.device.type == "meta" and made.shape == (3,)
