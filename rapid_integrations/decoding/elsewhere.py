"""The protocol of a drafter that another process runs: it reads the drafter's prompt there, and its rows are sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.models.causal_lm import CausalLM
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
class ModelElsewhere(CausalLM, Protocol):
    """A model that another process runs. It makes no pass and no cache here; `begin` takes their place."""

    def begin(self, prompt_ids: Sequence[int], new_tokens: int, rules: Rules) -> DrafterElsewhere:
        """Send a prompt, and return the drafter of one request, which has to be closed.

        Args:
            prompt_ids: the drafter's prompt.
            new_tokens: the longest answer.
            rules: of the request.
        """
        ...
