"""The other engines that a benchmark measures in the same run, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol

import torch

from rapid_integrations.errors import ConfigurationError, RapidError

PEERS: Final[dict[str, str]] = {
    "transformers": "rapid_integrations.benchmarks.transformers_peers:Plain",
    "transformers_assisted": "rapid_integrations.benchmarks.transformers_peers:Assisted",
    "transformers_lookup": "rapid_integrations.benchmarks.transformers_peers:PromptLookup",
    "openvino": "rapid_integrations.benchmarks.openvino_peer:OpenVINO",
}
"""Name to "module:class". A class here has `open(source) -> Peer`, which raises a `RapidError` if it cannot run."""


@dataclass(frozen=True)
class TimedTokens:
    """Output tokens and their times.

    Attributes:
        token_ids: the output, including an eos token if the engine returns it.
        first_token_s: seconds from the call to the first tokens.
        decode_s: seconds from the first tokens to the last.
        first_tokens: number of tokens that came first, at once.
    """

    token_ids: tuple[int, ...]
    first_token_s: float
    decode_s: float
    first_tokens: int = 1

    @property
    def decode_tps(self) -> float | None:
        """Tokens per second after the first ones, or None if all came at once."""
        later = len(self.token_ids) - self.first_tokens
        return later / self.decode_s if later > 0 and self.decode_s > 0 else None


class TokenClock:
    """Records the times of output tokens, for an engine that reports them one by one."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._times: list[float] = []
        self._counts: list[int] = []

    def came(self, tokens: int) -> None:
        """Count tokens that have just come."""
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._times.append(time.perf_counter())
        self._counts.append(tokens)

    def timed(self, token_ids: Sequence[int]) -> TimedTokens:
        """Return the output and its times."""
        if not self._times:
            return TimedTokens(tuple(token_ids), time.perf_counter() - self._started, 0.0, len(token_ids))
        first = self._times[0]
        return TimedTokens(tuple(token_ids), first - self._started, self._times[-1] - first, self._counts[0])


class Peer(Protocol):
    """Another engine with its model loaded.

    Attributes:
        settings: settings that its figures depend on, such as dtypes and threads.
    """

    settings: dict[str, str | float]

    def generate(self, prompt_ids: Sequence[int], new_tokens: int, eos: Sequence[int]) -> TimedTokens:
        """Decode greedily, stopping at an id of `eos`."""
        ...


@dataclass
class PeerSource:
    """What peers are made from.

    Attributes:
        target: the target's name, as given to the engine.
        drafter: the name of another model; None if the target drafts for itself.
        device: the device of the engine's target.
        load: loads a fresh transformers model with its own attention, by (name, dtype).
        warm_up_ids: a prompt for choosing the faster dtype.
        kv_cache: OpenVINO's KV-cache precision ("u8", "bf16", ...); None takes its default.
        fastest: the target in its faster dtype, once a peer from transformers has measured it.
    """

    target: str
    drafter: str | None
    device: torch.device
    load: Callable[[str, torch.dtype], Any]
    warm_up_ids: Sequence[int]
    kv_cache: str | None = None
    fastest: tuple[Any, torch.dtype] | None = None


def require_known(names: Sequence[str]) -> None:
    """Raise ConfigurationError if a name is not a peer's."""
    if unknown := [name for name in names if name not in PEERS]:
        raise ConfigurationError(f"no peer is called {', '.join(map(repr, unknown))}; there are: {', '.join(PEERS)}")


def open_peers(names: Sequence[str], source: PeerSource) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the peers that can run here, and for each other the reason why it cannot.

    Raises:
        ConfigurationError: a name is not a peer's.
    """
    require_known(names)
    peers: dict[str, Peer] = {}
    skipped: dict[str, str] = {}
    for name in names:
        module, _, attribute = PEERS[name].partition(":")
        try:
            peers[name] = getattr(import_module(module), attribute).open(source)
        except RapidError as error:
            skipped[name] = str(error)
    return peers, skipped
