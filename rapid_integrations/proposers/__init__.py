"""Proposers guess the next tokens. Each is one file, registered by name and imported on first use."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from rapid_integrations.errors import ConfigurationError

PROPOSERS: Final[dict[str, str | type]] = {
    "drafter": "rapid_integrations.proposers.drafter:DrafterProposer",
    "draft_lm": "rapid_integrations.proposers.drafter:DraftLMProposer",
    "hybrid": "rapid_integrations.proposers.hybrid:Hybrid",
    "prompt_lookup": "rapid_integrations.proposers.prompt_lookup:PromptLookup",
    "retrieval_tree": "rapid_integrations.proposers.retrieval_tree:RetrievalTree",
    "datastore": "rapid_integrations.proposers.datastore:DatastoreTree",
    "draft_head": "rapid_integrations.proposers.draft_head:DraftHeadProposer",
    "draft_head_tree": "rapid_integrations.proposers.draft_head:DraftHeadTree",
    "tree_hybrid": "rapid_integrations.proposers.hybrid:TreeHybrid",
    "skipped_layers": "rapid_integrations.proposers.skipped_layers:SkippedLayers",
    "magicdec": "rapid_integrations.proposers.magicdec:MagicDec",
    "triforce": "rapid_integrations.proposers.triforce:TriForce",
    "adaptive": "rapid_integrations.proposers.adaptive:Adaptive",
    "none": "rapid_integrations.decoding.proposal:NoProposer",
}
"""Maps a name to a class or to "module:class". The class has `from_request(request) -> Proposer`."""


ENTRY_POINTS: Final = "rapid_integrations.proposers"
"""The group of entry points in which a package names its proposers. A name that is registered here comes first."""


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
        ConfigurationError: no proposer has this name, or the package that provides it cannot be imported.
    """
    found = PROPOSERS.get(name)
    if found is None:
        installed = entry_points(group=ENTRY_POINTS)
        if name not in installed.names:
            known = ", ".join(("auto", *PROPOSERS, *sorted(installed.names - PROPOSERS.keys())))
            raise ConfigurationError(f"no proposer is called {name!r}; there are: {known}")
        try:
            return installed[name].load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"proposer {name!r} is registered as {installed[name].value!r}, which cannot be imported ({error}): "
                "install the package that provides it again"
            ) from error
    if not isinstance(found, str):
        return found
    module, _, attribute = found.partition(":")
    return getattr(import_module(module), attribute)
