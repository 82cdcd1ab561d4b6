"""Loads a trained head by its folder or its name on the hub. Safetensors are read, and further layers of GGUF files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rapid_integrations.errors import ConfigurationError, ModelLoadError, shown
from rapid_integrations.models.causal_lm import CausalLM, GivesStates
from rapid_integrations.models.folder_kinds import read_json
from rapid_integrations.models.gguf.further_layer import further_layer_of
from rapid_integrations.proposers.heads.eagle import Eagle, Eagle3, renamed
from rapid_integrations.proposers.heads.head import DraftHead
from rapid_integrations.proposers.heads.mtp import FurtherLayer, belongs, layout_of
from rapid_integrations.proposers.heads.stepwise import Hydra, Medusa, hydra_names, medusa_names
from rapid_integrations.proposers.heads.weights import HeadWeights


def load_head(name: str | Path, target: CausalLM, vocab_size: int) -> DraftHead:
    """Load a head for a target.

    Args:
        name: a folder with a config.json and safetensors, or a name on the Hugging Face hub. For the layers that
            predict further tokens it is the target's own folder, name or GGUF file.
        target: the model whose hidden states the head reads.
        vocab_size: V, the width of the logits that count.

    Raises:
        ConfigurationError: the target gives no hidden states, or `name` is something else.
        ModelLoadError: the head is damaged, or was made for another model; UnsupportedModelError if its layout is not
            known.
    """
    if not isinstance(name, (str, Path)):
        raise ConfigurationError(f"draft_head=... takes a folder or a name, not {shown(name)}")
    if not isinstance(target, GivesStates):
        raise ConfigurationError(
            f"draft_head={str(name)!r}: {target.name} gives no hidden states, which a head reads. A head needs a "
            "target that runs in this process"
        )
    if getattr(target, "state_bytes", 0):
        raise ConfigurationError(
            f"draft_head={str(name)!r}: {target.name} has recurrent layers, whose passes give no hidden states yet. "
            "Leave the head out, or take another target"
        )
    if Path(name).suffix.lower() == ".gguf":
        config, tensors = further_layer_of(Path(name).expanduser())
    else:
        folder = _folder(name)
        config = _config(folder)
        tensors = _tensors(folder, config)
    return _head(str(name), config, tensors, target, vocab_size)


def _head(
    name: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], target: Any, vocab_size: int
) -> DraftHead:
    if (layout := layout_of(tensors, config)) is not None:
        weights = HeadWeights(name, tensors, target.dtype, target.device)
        return FurtherLayer(weights, layout, config, target, vocab_size)
    if any(each.endswith(".hidden_norm.weight") for each in tensors):
        return Eagle3(HeadWeights(name, renamed(tensors), target.dtype, target.device), config, target, vocab_size)
    if any(each.startswith(("fc.", "fusion_fc.", "model.fc.")) for each in tensors):
        return Eagle(HeadWeights(name, renamed(tensors), target.dtype, target.device), config, target, vocab_size)
    if (found := medusa_names(tensors)) is not None:
        return Medusa(HeadWeights(name, found, target.dtype, target.device), target, vocab_size)
    if (found := hydra_names(tensors)) is not None:
        return Hydra(HeadWeights(name, found, target.dtype, target.device), config, target, vocab_size)
    if "model.norm.weight" in tensors:
        raise ModelLoadError(
            f"draft_head={name!r} is a whole model without layers that predict further tokens: it cannot be a head. A "
            "small model that drafts goes to draft_lm=..."
        )
    raise ModelLoadError(
        f"draft_head={name!r} is of no layout that is known: it has tensors such as "
        f"{', '.join(sorted(tensors)[:3]) or '(none)'}. docs/heads.md lists the layouts"
    )


def _folder(name: str | Path) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or isinstance(name, Path) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelLoadError(
            f"draft_head={str(name)!r} is no folder: give a folder with a config.json and safetensors, or a name on "
            "the Hugging Face hub"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, allow_patterns=["config.json", "*.safetensors", "*.safetensors.index.json"])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelLoadError(
            f"draft_head={name!r} could not be fetched from the hub ({' '.join(str(error).split())[:200]}): check the "
            "name and the network, or give a folder"
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a head; speculators keep that of its layer inside."""
    config = read_json(folder / "config.json")
    inner = config.get("transformer_layer_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _tensors(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a head, mapped into memory; of a whole model only those of its further layers."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth")]
        why = (
            f"its weights are pickled ({pickled[0]}), which can run any code when they are opened and are never opened "
            "here: convert them to safetensors, where you trust their author"
            if pickled
            else "it has no safetensors file"
        )
        raise ModelLoadError(f"draft_head={str(folder)!r}: {why}")
    places: dict[str, Path] = {}
    tensors: dict[str, Tensor] = {}
    try:
        for path in files:
            with safe_open(path, framework="pt") as file:
                places |= dict.fromkeys(file.keys(), path)
        if layout_of(places, config) is not None:  # of a whole model only the layer is read
            places = {key: path for key, path in places.items() if belongs(key, config)}
        for path in dict.fromkeys(places.values()):
            with safe_open(path, framework="pt") as file:
                tensors |= {key: file.get_tensor(key) for key, place in places.items() if place == path}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelLoadError(f"{path} could not be loaded: {error}. Fetch it again") from error
    return tensors
