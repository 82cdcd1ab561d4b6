"""What cannot be run exactly, and why: told from a model's configuration, before it reads anything."""

from __future__ import annotations

from typing import Any

import torch

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.families import FAMILIES
from rapid_integrations.models.host_cache import INDEXED, KNOWN_LAYERS, held_layers, looks_back_without_end
from rapid_integrations.models.positions import positions_of


def refuse_unsupported(model: Any, longest: int | None = None, *, described: bool = False) -> None:
    """Raise UnsupportedModelError, with the reason, for a model that cannot be run exactly.

    `longest`: see `HuggingFaceLM`. `described`: `FusedDecoder` runs the model. It chooses between short and long
    rotations ("longrope") once for a text, by its capacity, and knows the keys of indexers.
    """
    config = model.config.get_text_config(decoder=True)
    name = config._name_or_path or type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; a decoder-only causal LM is needed")
    kinds_of_layers = set(getattr(config, "layer_types", None) or ())
    others = sorted(kinds_of_layers - KNOWN_LAYERS - ({INDEXED} if described else set()))
    if others == [INDEXED] and type(model).__name__ in FAMILIES:
        raise UnsupportedModelError(
            f"{name} has layers of kind indexed_attention, which this engine computes itself and not in transformers' "
            "forward: it needs to be loaded by its name or folder, with weights in safetensors, on one device"
        )
    # Hybrids are marked as stateful even if all their layers attend. So a list of layer kinds decides.
    stateful = getattr(model, "_is_stateful", False) and not getattr(config, "layer_types", None)
    if others or stateful:
        kinds = ", ".join(others) or "recurrent state"
        raise UnsupportedModelError(
            f"{name} has layers of kind {kinds}; this engine's cache does not know what they hold, so a rejected draft "
            f"could not be undone. It knows {', '.join(sorted(KNOWN_LAYERS))}"
        )
    inner = getattr(config, "attn_config", None)
    if getattr(config, "alibi", False) or getattr(inner, "alibi", False) or config.model_type in ("bloom", "mpt"):
        raise UnsupportedModelError(
            f"{name} ({config.model_type}) has no rotary or learned positions but ALiBi, a bias that grows with the "
            "distance, which this engine's attention does not compute; take a model with rotary positions"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    kinds_of_rope = {str(r.get("rope_type")) for r in (rope, *rope.values()) if isinstance(r, dict)}
    if moving := sorted(kinds_of_rope & ({"dynamic"} if described else {"dynamic", "longrope"})):
        raise UnsupportedModelError(
            f"{name} has rotary frequencies that follow the length read so far ({', '.join(moving)}); keys that are "
            "cached would have to change with them"
        )
    if model.get_output_embeddings() is None:
        raise UnsupportedModelError(f"{name} ({type(model).__name__}) has no language-model head: it writes no text")
    if positions_of(model) is None and longest is None and looks_back_without_end(held_layers(config)):
        raise UnsupportedModelError(
            f"{name} has no maximum length in its configuration (max_position_embeddings or the like)"
        )


def device_of_inputs(model: Any) -> torch.device:
    """Return where token ids must lie: where the embedding is, or where it is put for each pass if it is offloaded."""
    table = model.get_input_embeddings()
    if table.weight.device.type != "meta":
        return torch.device(table.weight.device)
    hook = getattr(table, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        raise ModelLoadError(
            f"{model.config._name_or_path or type(model).__name__}: its embedding has no numbers (device 'meta') and "
            "nothing that fetches them; load the model with device_map='auto', or on one device"
        )
    return torch.device(device)
