"""Whether every weight of a model came from its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.safetensors_files import named


def require_all_weights(name: str, report: Mapping[str, Any]) -> None:
    """Check what transformers reports of loading a model.

    Raises:
        ModelLoadError: weights that it filled with random numbers, or could not make of what the files hold.
    """
    if missing := _names(report.get("missing_keys")):
        raise ModelLoadError(
            f"{name} lacks {len(missing)} weights ({named(missing)}), which transformers would fill with random "
            "numbers: the checkpoint is incomplete, fetch it again"
        )
    if mismatched := _names(report.get("mismatched_keys")):
        raise ModelLoadError(
            f"{name} could not be loaded: {len(mismatched)} weights have another shape than its configuration says "
            f"({named(mismatched)})"
        )
    if failed := [*_names(report.get("conversion_errors")), *map(str, report.get("error_msgs") or ())]:
        raise ModelLoadError(f"{name} could not be loaded: {named(failed)}")


def _names(keys: Iterable[Any] | None) -> list[str]:
    return sorted(key if isinstance(key, str) else str(key[0]) for key in keys or ())
