"""Checks that every weight of a model came from its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.safetensors_files import named

# Names of the tensors that quantisation tools write: GPTQ and AWQ, bitsandbytes, FP8 and similar ones.
_PACKED = (".qweight", ".qzeros", ".SCB", ".absmax", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".biases")


def require_all_weights(name: str, report: Mapping[str, Any]) -> None:
    """Check transformers' report on loading a model.

    Raises:
        ModelLoadError: transformers filled weights with random numbers, or could not read them from the files.
    """
    if mismatched := sorted(map(_shapes, report.get("mismatched_keys") or ())):
        raise ModelLoadError(
            f"{name} could not be loaded: {len(mismatched)} weights have another shape than its configuration says "
            f"({named(mismatched)}); configuration and weights belong to different models"
        )
    if missing := _names(report.get("missing_keys")):
        raise ModelLoadError(
            f"{name} lacks {len(missing)} weights ({named(missing)}), which transformers would fill with random "
            f"numbers: {_why(_names(report.get('unexpected_keys')))}"
        )
    if failed := [*_names(report.get("conversion_errors")), *map(str, report.get("error_msgs") or ())]:
        raise ModelLoadError(f"{name} could not be loaded: {named(failed)}")


def _why(others: list[str]) -> str:
    """Return the likely fault of files that lack weights and hold others that do not belong to the model."""
    if not others:
        return "the checkpoint is incomplete, fetch it again"
    if packed := [each for each in others if each.endswith(_PACKED)]:
        return f"its files hold quantised ones ({named(packed)}), which cannot be read. Take the unquantised model"
    return (
        f"its files hold {len(others)} others ({named(others)}). They are of another architecture than config.json "
        "names, or were saved from inside another module whose name they begin with"
    )


def _shapes(mismatched: Any) -> str:
    if isinstance(mismatched, str):
        return mismatched
    key, held, wanted = (*mismatched, None, None)[:3]
    return f"{key}: {tuple(held)}, not {tuple(wanted)}" if held is not None and wanted is not None else str(key)


def _names(keys: Iterable[Any] | None) -> list[str]:
    return sorted(key if isinstance(key, str) else str(key[0]) for key in keys or ())
