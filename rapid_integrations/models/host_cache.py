"""The cache that a transformers model's own forward pass receives: a view of this package's cache."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer, LinearAttentionLayer

from rapid_integrations.cache import KVCache, LayerRows
from rapid_integrations.models import attention

WITH_KEYS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
WITH_STATE = frozenset({"linear_attention", "conv"})
WITH_BOTH = frozenset({"hybrid", "hybrid_sliding"})
WITHOUT = frozenset({"mlp", "moe"})  # layers of some hybrids
KNOWN_LAYERS = WITH_KEYS | WITH_STATE | WITH_BOTH | WITHOUT
INDEXED = "indexed_attention"  # of which our own decoder computes some; a model's own forward does not run on our cache


@dataclass(frozen=True)
class HeldLayer:
    """What one layer holds between passes.

    Attributes:
        slot: number of its keys and values in our cache; None: it has none, or those of another layer.
        sliding: whether its attention has a window.
        states: number of its recurrent or convolution states.
    """

    slot: int | None
    sliding: bool = False
    states: int = 0


def held_layers(config: Any) -> list[HeldLayer]:
    """Return what the layers of a text configuration hold."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    sharing = getattr(config, "kv_sharing_modes", None) or [None] * len(kinds)
    states = getattr(config, "number_of_conv_states", None) or 1
    held: list[HeldLayer] = []
    slots = 0
    for kind, mode in zip(kinds, sharing, strict=True):
        own = kind in WITH_KEYS | WITH_BOTH | {INDEXED} and mode != "reuse"
        held.append(
            HeldLayer(
                slots if own else None,
                kind in ("sliding_attention", "hybrid_sliding"),
                states if kind in WITH_STATE | WITH_BOTH else 0,
            )
        )
        slots += own
    return held


def chooses_keys(config: Any) -> bool:
    """Return whether layers of a text configuration see keys that an indexer chooses."""
    return INDEXED in (getattr(config, "layer_types", None) or ())


def looks_back_without_end(held: list[HeldLayer]) -> bool:
    """Return whether some layer sees the whole text, so that a model needs to say how long a text may be.

    Recurrent layers and the windows beside them (RecurrentGemma) have no such limit.
    """
    recurrent = any(each.states for each in held)
    return any(each.slot is not None and not (recurrent and each.sliding) for each in held)


class HostCache(Cache):
    """The transformers `Cache` of one pass.

    Args:
        cache: ours. Keys and values are written to it.
        held: what the layers hold.
        joined: the keys and values of shared segments are copied in front of the tail's, as the model's layers lose
            what tells them of the segments.
        states: tensors of the layers' states, as `states` returned them. They are changed in place.
        begin: position of the first token of the pass; None: behind what has been read. Tokens that the cache holds
            already are read once more for the states. Their keys and values are not written again.
    """

    def __init__(
        self,
        cache: KVCache,
        held: list[HeldLayer],
        joined: bool,
        states: dict[str, Tensor] | None = None,
        begin: int | None = None,
    ) -> None:
        begin = cache.length if begin is None else begin
        layers: list[Any] = []
        for index, each in enumerate(held):
            if each.states and each.slot is not None:
                layers.append(_BothLayer(cache, each, joined, begin))
            elif each.states:
                layers.append(_StateLayer(each.states))
            elif each.slot is not None:
                layers.append(_KeysLayer(cache, each, joined, begin))
            else:
                layers.append(DummyLayer())
            if each.states:
                layers[-1].load(f"{index}.", states or {})
        Cache.__init__(self, layers)  # a subclass may have another parent before it

    def states(self) -> dict[str, Tensor]:
        """Return the tensors of all states, by layer, kind and number."""
        return {
            f"{index}.{name}": tensor
            for index, layer in enumerate(self.layers)
            if isinstance(layer, _StateLayer)
            for name, tensor in layer.held().items()
        }


def host_cache_class(model: Any) -> type[HostCache]:
    """Return the class of cache that a model takes."""
    base = getattr(sys.modules[type(model).__module__], "MiniMaxCache", None)
    if base is None:
        return HostCache

    class MiniMaxHostCache(HostCache, base):  # type: ignore[valid-type,misc]
        """Lightning attention asks for its state by names of its own, and for a cache of its own class."""

        def __len__(self) -> int:
            return len(self.layers)

        def get_linear_cache(self, layer_idx: int) -> Tensor | None:
            state: Tensor | None = self.get_recurrent_state(layer_idx)
            return state

        def set_linear_cache(self, layer_idx: int, linear_cache: Tensor) -> None:
            self.layers[layer_idx].load("", {"recurrent.0": linear_cache})

    return MiniMaxHostCache


def reads_one_by_one(model: Any) -> bool:
    """Return whether a model's layers go on from a state with single tokens only.

    transformers' scan of the first Mamba begins with an empty state, whatever was read before, and RecurrentGemma's
    convolution does so before several tokens.
    """
    return "mamba_selective_scan" in vars(sys.modules[type(model).__module__]) or bool(ModuleStates(model).held())


class ModuleStates:
    """The states that modules of a model keep themselves, as those of RecurrentGemma do.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._places = {
            f"{name}.{attribute}": (module, attribute)
            for name, module in model.named_modules()
            for attribute in ("conv1d_state", "recurrent_states")
            if attribute in vars(module)
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Give the modules their states, or none if there are none yet."""
        for name, (module, attribute) in self._places.items():
            setattr(module, attribute, tensors.get(name))

    def held(self) -> dict[str, Tensor]:
        """Return the modules' states, by name, and take them away."""
        held = {name: getattr(module, attribute) for name, (module, attribute) in self._places.items()}
        self.load({})
        return held


class _KeysLayer(CacheLayerMixin):
    """One layer of our cache, as a transformers layer sees it during one forward pass."""

    def __init__(self, cache: KVCache, held: HeldLayer, joined: bool, begin: int) -> None:
        super().__init__()
        assert held.slot is not None
        self._cache, self._slot, self._joined, self._begin = cache, held.slot, joined, begin
        self.is_sliding = held.sliding

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        count = key_states.shape[2]
        new = slice(min(self._cache.length - self._begin, count), None)
        segments = self._cache.write(self._slot, key_states[:, :, new], value_states[:, :, new])
        if self._begin + count < self._cache.length:
            segments = _first(segments, self._begin + count)
        if not self._joined:
            return attention.with_prefix(segments)
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*segments, strict=True))
        return keys, values

    def get_seq_length(self) -> int:
        return self._begin

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._begin + query_length, 0

    def get_max_length(self) -> int:
        return self._cache.capacity

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: our cache allocates itself."""


class _StateLayer(LinearAttentionLayer):
    """The states of one layer during one forward pass."""

    def load(self, prefix: str, tensors: dict[str, Tensor]) -> None:
        for number in range(self.number_of_states):
            for kind, held, known in (
                ("conv", self.conv_states, self.is_conv_states_initialized),
                ("recurrent", self.recurrent_states, self.is_recurrent_states_initialized),
            ):
                if (tensor := tensors.get(f"{prefix}{kind}.{number}")) is not None:
                    held[number], known[number], self.has_previous_state[number] = tensor, True, True
                    self.dtype, self.device = tensor.dtype, tensor.device
                    if kind == "conv":
                        self.conv_kernel_size[number] = tensor.shape[-1]

    def held(self) -> dict[str, Tensor]:
        named = {f"conv.{number}": each for number, each in self.conv_states.items()}
        named |= {f"recurrent.{number}": each for number, each in self.recurrent_states.items()}
        return {name: each for name, each in named.items() if each is not None}

    def lazy_initialization(
        self,
        conv_states: Tensor | None = None,
        recurrent_states: Tensor | None = None,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
    ) -> None:
        # As in the base class, but without `torch._dynamo`, whose import takes seconds.
        if conv_states is not None:
            self.dtype, self.device = conv_states.dtype, conv_states.device
            width = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
            self.conv_kernel_size[state_idx] = width
            self.conv_states[state_idx] = conv_states.new_zeros((*conv_states.shape[:-1], width))
            self.is_conv_states_initialized[state_idx] = True
        if recurrent_states is not None:
            self.recurrent_states[state_idx] = torch.zeros_like(recurrent_states)
            self.is_recurrent_states_initialized[state_idx] = True


class _BothLayer(_StateLayer, _KeysLayer):
    """A layer with keys and values and with states."""

    def __init__(self, cache: KVCache, held: HeldLayer, joined: bool, begin: int) -> None:
        _KeysLayer.__init__(self, cache, held, joined, begin)
        LinearAttentionLayer.__init__(self, held.states)


def _first(segments: list[LayerRows], count: int) -> list[LayerRows]:
    """Return the first `count` rows."""
    first: list[LayerRows] = []
    for keys, values in segments:
        if count > 0:
            first.append((keys[:, :, :count], values[:, :, :count]))
        count -= keys.shape[2]
    return first
