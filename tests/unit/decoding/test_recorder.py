"""The clock, by events of devices that are not there."""

import pytest
import torch

from rapid_integrations.decoding.recorder import Recorder

FIRST, SECOND, CPU = torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")


class Devices:
    """Queues of devices. Their clocks show what a test says, in milliseconds."""

    def __init__(self, monkeypatch):
        self.at = {FIRST: 0.0, SECOND: 0.0}
        self.busy, self.waited = False, []
        devices = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self, stream):
                self.at = devices.at[stream]

            def query(self):
                return not devices.busy

            def synchronize(self):
                devices.waited.append("event")

            def elapsed_time(self, end):
                return end.at - self.at

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
        monkeypatch.setattr(torch.cuda, "synchronize", self.waited.append)


def test_phases_are_timed_in_the_queues_of_all_devices_without_a_wait(monkeypatch):
    devices = Devices(monkeypatch)
    recorder = Recorder(FIRST, CPU, SECOND, FIRST)
    for _ in range(2):
        with recorder.phase("propose"):
            devices.at[SECOND] += 30.0
        with recorder.phase("verify"):
            devices.at[FIRST] += 20.0
            devices.at[SECOND] += 5.0
            recorder.elsewhere(0.004)
    recorder.finish_round(3, 2, 3)
    assert devices.waited == []
    assert recorder.seconds == {"propose": pytest.approx(0.06), "verify": pytest.approx(0.032)}
    assert devices.waited == [] and recorder.rounds == 1


def test_seconds_that_are_asked_for_too_early_are_waited_for(monkeypatch):
    devices = Devices(monkeypatch)
    recorder = Recorder(FIRST)
    with recorder.phase("prefill"):
        devices.busy = True
        devices.at[FIRST] += 7.0
    assert recorder.seconds == {"prefill": pytest.approx(0.007)} and devices.waited == ["event"]


def test_decoding_starts_when_every_device_has_caught_up(monkeypatch):
    devices = Devices(monkeypatch)
    Recorder(FIRST, CPU, SECOND, FIRST).start_decoding()
    assert devices.waited == [FIRST, SECOND]


def test_processors_are_timed_by_the_clock(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: 1 / 0)
    recorder = Recorder(CPU, CPU)
    with recorder.phase("score"):
        recorder.start_decoding()
    assert 0 <= recorder.seconds["score"] < 60
