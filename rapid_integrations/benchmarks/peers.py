"""The other engines that a benchmark measures in the same run, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from rapid_integrations.errors import ConfigurationError, RapidError

if TYPE_CHECKING:
    import torch  # a process that measures OpenVINO or llama.cpp must not wait for it

PEERS: Final[dict[str, str]] = {
    "transformers": "rapid_integrations.benchmarks.transformers_peers:Plain",
    "transformers_assisted": "rapid_integrations.benchmarks.transformers_peers:Assisted",
    "transformers_lookup": "rapid_integrations.benchmarks.transformers_peers:PromptLookup",
    "openvino": "rapid_integrations.benchmarks.openvino_peer:OpenVINO",
    "llama_cpp": "rapid_integrations.benchmarks.llama_cpp_peer:LlamaCpp",
}
"""Name to "module:class", a `PeerClass`."""


@dataclass(frozen=True)
class TimedTokens:
    """Output tokens and their times.

    Attributes:
        token_ids: the output, including an eos token if the engine returns it.
        first_token_s: seconds from the call to the first tokens.
        decode_s: seconds from the first tokens to the last.
        first_tokens: number of tokens that came first, at once.
        prefill_s: seconds of `first_token_s` in which the prompt was read; None if the engine does not say.
        cached_tokens: tokens of the prompt that were not read again; None if the engine does not say.
        first_token_cpu_s: processor seconds of this process, all threads, from the call to the first tokens.
    """

    token_ids: tuple[int, ...]
    first_token_s: float
    decode_s: float
    first_tokens: int = 1
    prefill_s: float | None = None
    cached_tokens: int | None = None
    first_token_cpu_s: float = 0.0

    @property
    def decode_tps(self) -> float | None:
        """Tokens per second after the first ones, or None if all came at once."""
        later = len(self.token_ids) - self.first_tokens
        return later / self.decode_s if later > 0 and self.decode_s > 0 else None


class TokenClock:
    """Records the times of output tokens, for an engine that reports them one by one."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self._started, self._cpu = time.perf_counter(), time.process_time()
        self._cpu_s = 0.0
        self._times: list[float] = []
        self._counts: list[int] = []

    def came(self, tokens: int) -> None:
        """Count tokens that have just come."""
        if self._device is not None and self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        if not self._times:
            self._cpu_s = time.process_time() - self._cpu
        self._times.append(time.perf_counter())
        self._counts.append(tokens)

    def timed(self, token_ids: Sequence[int]) -> TimedTokens:
        """Return the output and its times."""
        if not self._times:
            return TimedTokens(tuple(token_ids), time.perf_counter() - self._started, 0.0, len(token_ids))
        first = self._times[0]
        return TimedTokens(
            tuple(token_ids),
            first - self._started,
            self._times[-1] - first,
            self._counts[0],
            first_token_cpu_s=self._cpu_s,
        )


class Peer(Protocol):
    """Another engine with its model loaded.

    Attributes:
        settings: settings that its figures depend on, such as dtypes and threads.
        lacks: for each stage of `rapid bench question` that it has not, the reason.
    """

    settings: dict[str, str | float]
    lacks: ClassVar[Mapping[str, str]]

    def generate(self, prompt_ids: Sequence[int], new_tokens: int, eos: Sequence[int]) -> TimedTokens:
        """Decode greedily, stopping at an id of `eos`."""
        ...


class KeepingPeer(Peer, Protocol):
    """A peer that lacks no stage: it writes what it has read to files."""

    def keep(self, folder: Path) -> None:
        """Write the keys and values of the last prompt to a folder."""
        ...

    def restore(self, folder: Path) -> None:
        """Load them, in another process."""
        ...


class PeerClass(Protocol):
    """Opens a peer."""

    lacks: ClassVar[Mapping[str, str]]

    def import_package(self) -> None:
        """Import the engine's modules.

        Raises:
            MissingExtraError: they are not installed.
        """
        ...

    def open(self, source: PeerSource) -> Peer:
        """Load the model.

        Raises:
            RapidError: it cannot run.
        """
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
        threads: number of threads of an engine that does not run in torch.
        kv_cache: OpenVINO's KV-cache precision ("u8", "bf16", ...); None takes its default.
        context_tokens: longest prompt and its answer, for an engine that makes its cache when it loads.
        files: a folder for what `KeepingPeer.keep` writes; None if it is not called.
        prefix_caching: whether a peer that can keep what it has read, for the next prompt, does so.
        fastest: the target in its faster dtype, once a peer from transformers has measured it.
    """

    target: str
    drafter: str | None
    device: torch.device
    load: Callable[[str, torch.dtype], Any]
    warm_up_ids: Sequence[int]
    threads: int
    context_tokens: int
    kv_cache: str | None = None
    files: Path | None = None
    prefix_caching: bool = False
    fastest: tuple[Any, torch.dtype] | None = None


def peer_class(name: str) -> PeerClass:
    """Return the class of a name in `PEERS`. The engine itself is not imported yet."""
    module, _, attribute = PEERS[name].partition(":")
    return cast(PeerClass, getattr(import_module(module), attribute))


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
        try:
            peers[name] = peer_class(name).open(source)
        except RapidError as error:
            skipped[name] = str(error)
    return peers, skipped
