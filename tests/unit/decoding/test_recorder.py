"""The clock, and what it waits for on devices that are not there."""

import torch

from rapid_integrations.decoding.recorder import Recorder

FIRST, SECOND, CPU = torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")


def test_every_models_device_catches_up_before_the_clock_is_read(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    recorder = Recorder(FIRST, CPU, SECOND, FIRST)
    assert waited == [FIRST, SECOND]
    with recorder.phase("propose"):
        waited.clear()
    assert waited == [FIRST, SECOND] and recorder.seconds["propose"] >= 0


def test_nothing_waits_on_processors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: 1 / 0)
    Recorder(CPU, CPU).now()
