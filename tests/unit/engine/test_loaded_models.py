"""Where the models of an engine are put: what reaches the loader."""

import pytest

from rapid_integrations.engine import loaded_models


class Lm:
    def close(self):
        pass


@pytest.mark.parametrize(
    ("asked", "device", "device_map"),
    [
        ({}, "auto", "auto"),
        ({"drafter_device": "cuda:1"}, "cuda:1", None),
        ({"drafter_device_map": {"": 1}}, "auto", {"": 1}),
        ({"drafter_device": "cuda:1", "drafter_device_map": "balanced"}, "cuda:1", "balanced"),
    ],
)
def test_a_drafters_own_device_comes_before_the_targets_map(monkeypatch, asked, device, device_map):
    loads = []

    def load(name, **options):
        loads.append((name, options["device"], options["device_map"]))
        return loaded_models.LoadedModel(Lm(), None)

    monkeypatch.setattr(loaded_models.loader, "load", load)
    options = dict.fromkeys(
        (
            "quantization",
            "drafter_quantization",
            "draft_lm_quantization",
            "drafter_dtype",
            "drafter_device",
            "drafter_device_map",
            "verify",
            "kv_dtype",
            "sparse_prefill",
            "on_progress",
        )
    )
    options |= {"dtype": "auto", "device": "auto", "device_map": "auto", "trust_remote_code": False, **asked}
    with loaded_models.loaded_models("target", "small", None, **options):
        pass
    assert loads == [("target", "auto", "auto"), ("small", device, device_map)]
