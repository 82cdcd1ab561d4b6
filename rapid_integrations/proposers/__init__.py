"""Techniques for guessing the next tokens, one file each, loaded when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from rapid_integrations.errors import ConfigurationError

PROPOSERS: Final[dict[str, str]] = {
    "drafter": "rapid_integrations.proposers.drafter:DrafterProposer",
    "draft_lm": "rapid_integrations.proposers.drafter:DraftLMProposer",
    "hybrid": "rapid_integrations.proposers.hybrid:Hybrid",
    "prompt_lookup": "rapid_integrations.proposers.prompt_lookup:PromptLookup",
    "none": "rapid_integrations.decoding.proposal:NoProposer",
}
"""Name to "module:class". A class here has `from_request(request) -> Proposer`."""


def proposer_class(name: str) -> Any:
    """Return the class registered under `name`.

    Raises:
        ConfigurationError: no such proposer.
    """
    try:
        module, _, attribute = PROPOSERS[name].partition(":")
    except KeyError:
        raise ConfigurationError(f"no proposer is called {name!r}; there are: {', '.join(PROPOSERS)}") from None
    return getattr(import_module(module), attribute)
