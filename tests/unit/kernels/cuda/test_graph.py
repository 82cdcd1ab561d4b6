"""What stands in for a CUDA graph where there is none."""

import torch

from rapid_integrations.kernels.cuda.graph import EagerGraph, graph_of


def test_a_replay_does_the_step_with_what_its_buffers_hold_now():
    given, result = torch.zeros(2), torch.zeros(2)
    graph = graph_of(lambda: result.copy_(2 * given), torch.device("cpu"))
    assert isinstance(graph, EagerGraph)
    assert (result == 0).all()
    for value in (1.0, 5.0):
        given.fill_(value)
        graph.replay()
        assert (result == 2 * value).all()
