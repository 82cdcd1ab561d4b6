"""Ask a peer within a process of `rapid bench question`. Importing this module imports neither torch nor the peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rapid_integrations.benchmarks.peers import KeepingPeer, Peer, PeerSource, peer_class
from rapid_integrations.benchmarks.waits import Wait


class PeerProcess:
    """A peer that gets the tokens of the same prompts.

    Args:
        peer: the peer, loaded.
        told: see `cli.question_child`.
    """

    def __init__(self, peer: Peer, told: dict[str, Any]) -> None:
        self._peer = peer
        self._told = told
        self.settings = peer.settings

    @classmethod
    @contextmanager
    def opened(cls, told: dict[str, Any]) -> Iterator[PeerProcess]:
        """Load the model, and what another process has written."""
        source = PeerSource(
            told["target"],
            told["drafter"],
            # Not torch's own type, which would have to be imported: these peers read only its `type`.
            cast(Any, SimpleNamespace(type=told["device"])),
            _load,
            told["warm_up"],
            threads=told["threads"],
            context_tokens=told["context_tokens"],
            kv_cache=told["kv_cache"],
            files=None if told["files"] is None else Path(told["files"]),
            prefix_caching=True,
        )
        if told["method"].startswith("transformers"):
            import torch

            source.device = torch.device(told["device"])
            dtype = getattr(torch, told["dtype"])
            source.fastest = (_load(told["target"], dtype, source.device), dtype)
        yield cls(peer_class(told["method"]).open(source), told)

    def warm_up(self) -> None:
        """Answer a prompt that shares no beginning with the others."""
        self._peer.generate(self._told["warm_up"], 2, self._told["eos"])

    def read(self) -> None:
        """Read the tokens that the prompts of all questions begin with."""
        self._peer.generate(self._told["shared"], 1, ())

    def ask(self, number: int) -> Wait:
        """Answer the first question (0) or the second (1)."""
        ids = self._told["prompts"][number]
        timed = self._peer.generate(ids, self._told["new_tokens"], self._told["eos"])
        parts = {"prefill": timed.first_token_s}
        if timed.prefill_s is not None:
            parts = {"prefill": timed.prefill_s, "first_round": timed.first_token_s - timed.prefill_s}
        return Wait(
            timed.first_token_s,
            parts,
            timed.first_token_cpu_s,
            timed.first_token_s + timed.decode_s,
            len(timed.token_ids),
            len(ids),
            timed.cached_tokens,
        )

    def keep(self) -> None:
        """Write what it has read to the folder."""
        cast(KeepingPeer, self._peer).keep(Path(self._told["files"]))

    def restore(self) -> None:
        """Read what `keep` has written."""
        cast(KeepingPeer, self._peer).restore(Path(self._told["files"]))


def _load(name: str, dtype: Any, device: Any = None) -> Any:
    from rapid_integrations.benchmarks.transformers_peers import loaded_as_it_comes
    from rapid_integrations.models.placement import device_of

    return loaded_as_it_comes(device or device_of("auto"))(name, dtype)
