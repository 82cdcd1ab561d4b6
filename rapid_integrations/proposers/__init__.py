"""Proposers guess the next tokens. Each is one file, registered by name and imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from rapid_integrations.errors import ConfigurationError

PROPOSERS: Final[dict[str, str | type]] = {
    "drafter": "rapid_integrations.proposers.drafter:DrafterProposer",
    "draft_lm": "rapid_integrations.proposers.drafter:DraftLMProposer",
    "hybrid": "rapid_integrations.proposers.hybrid:Hybrid",
    "tree_hybrid": "rapid_integrations.proposers.hybrid:TreeHybrid",
    "prompt_lookup": "rapid_integrations.proposers.prompt_lookup:PromptLookup",
    "retrieval_tree": "rapid_integrations.proposers.retrieval_tree:RetrievalTree",
    "none": "rapid_integrations.decoding.proposal:NoProposer",
}
"""Maps a name to a class or to "module:class". The class has `from_request(request) -> Proposer`."""


def register_proposer(name: str, proposer: type | str) -> None:
    """Make a proposer available as `SpeculationConfig(proposer=name)`.

    Args:
        name: the name that requests use. An existing one is replaced.
        proposer: a class with `from_request(request: ProposerRequest) -> Proposer`, or "module:class". The module is
            imported when a request first uses it.
    """
    PROPOSERS[name] = proposer


def proposer_class(name: str) -> Any:
    """Return the class registered under `name`.

    Raises:
        ConfigurationError: no proposer has this name.
    """
    try:
        found = PROPOSERS[name]
    except KeyError:
        known = ", ".join(("auto", *PROPOSERS))
        raise ConfigurationError(f"no proposer is called {name!r}; there are: {known}") from None
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    return getattr(import_module(module), attribute)
