"""The protocol of a drafter that another process runs: it reads the drafter's prompt there, and its rows are sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch

from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.outputs import RemoteDrafting


class DrafterElsewhere(Drafter):
    """A `Drafter` without a reader of its own: another process reads the prompt and the drafts.

    The wait for it is a future that the worker looks at, so that other requests go on (`decoding/passes.py`).
    """

    elsewhere = True

    def opened(self, report: Callable[[int, int], None]) -> Steps[None]:
        """Wait until the prompt has been read there; reports tokens read and tokens to read.

        The prompt is sent when this object is made.
        """
        raise NotImplementedError

    @property
    def reused(self) -> int:
        """The number of tokens of the prompt that were in a cache there."""
        raise NotImplementedError

    def statistics(self) -> RemoteDrafting:
        """Return what the request has sent, received and waited for so far."""
        raise NotImplementedError

    def close(self) -> None:
        """Have the other process forget the text; safe to call again. Does not wait."""
        raise NotImplementedError


@runtime_checkable
class ModelElsewhere(Protocol):
    """A model that another process runs, as the plan of a request sees it; see `CausalLM` for the attributes."""

    name: str
    context_window: int
    vocab_size: int
    device: torch.device
    num_parameters: int
    weight_bytes: int
    kv_bytes_per_token: int

    def fingerprint(self) -> str:
        """Return what identifies the model as far as it is known here."""
        ...

    def begin(self, prompt_ids: Sequence[int], new_tokens: int, rules: Rules) -> DrafterElsewhere:
        """Send a prompt, and return the drafter of one request, which has to be closed.

        Args:
            prompt_ids: the drafter's prompt.
            new_tokens: the longest answer.
            rules: of the request.
        """
        ...

    def close(self) -> None:
        """End the connection; safe to call again."""
        ...
