"""The methods of the comparison, by name and options.

lc          the target reads the whole document
rag         the drafter's model reads what was retrieved
rag-target  the target reads what was retrieved
sd          naive speculative decoding: RAPID's drafter, the target's own distribution (law "target")
magicdec    the target drafts for itself over the first and the last rows of its own cache (StreamingLLM's view)
rapid       the engine: law, eta, tail rule, proposer, draft length and the drafter's chunks as options
speculative_rag  the drafter's model answers from several subsets of what was retrieved, the target chooses one answer

A method is written as its name, or "name:option=value,option=value". Every table uses this name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rapid_integrations.config import PAPER_DRAFT_LENGTH, SpeculationConfig
from rapid_integrations.engine.speculative_rag.settings import SpeculativeRAGConfig
from rapid_integrations.errors import ConfigurationError

METHODS = {
    "lc": "the target reads the whole document",
    "rag": "the drafter's model reads what was retrieved",
    "rag-target": "the target reads what was retrieved",
    "sd": "naive speculative decoding: the drafter reads what was retrieved, law target",
    "magicdec": "the target drafts over the first and last rows of its own cache, law target",
    "rapid": "RAPID: the drafter reads what was retrieved, the output follows law and eta",
    "speculative_rag": "drafts from subsets of what was retrieved, the target chooses one (arXiv 2407.08223)",
}
PAPER_SINKS = 4  # tokens, arXiv 2502.20330, section 4.1

_ALONE: dict[str, Any] = {"law": "target", "proposer": "none"}
_SPECULATION: dict[str, dict[str, Any]] = {
    "lc": _ALONE,
    "rag": _ALONE,
    "rag-target": _ALONE,
    "sd": {"law": "target", "proposer": "drafter", "draft_length": PAPER_DRAFT_LENGTH},
    "magicdec": {
        "law": "target",
        "proposer": "magicdec",
        "draft_length": PAPER_DRAFT_LENGTH,
        "draft_retrieved": False,
    },
    "rapid": {"law": "auto"},
    "speculative_rag": _ALONE,
}
_SHORT = {"draft": "draft_length", "tail": "tail_rule", "chunks": "chunk_cache"}
_OF_SPECULATION = ("law", "eta", "tail", "tail_alpha", "proposer", "draft", "max_draft_length", "chunks")
_OPTIONS = {
    "lc": (),
    "rag": ("retrieved", "context"),
    "rag-target": ("retrieved", "context"),
    "sd": ("draft", "proposer", "retrieved", "context"),
    "magicdec": ("draft", "recent", "sinks"),
    "rapid": (*_OF_SPECULATION, "retrieved", "context"),
    "speculative_rag": (*SpeculativeRAGConfig.model_fields, "retrieved", "context"),
}


@dataclass(frozen=True)
class Method:
    """A method that answers questions.

    Attributes:
        name: name and options, as in tables.
        kind: one of `METHODS`.
        speculation: the settings of its decoding.
        retrieved: tokens that retrieval may keep; None takes the run's compression settings.
        unrelated: whether the drafter reads passages of another document (the robustness study).
        recent: last tokens over which "magicdec" drafts; None: as many as retrieval would keep.
    """

    name: str
    kind: str
    speculation: SpeculationConfig
    retrieved: int | None = None
    unrelated: bool = False
    recent: int | None = None
    drafting: SpeculativeRAGConfig = SpeculativeRAGConfig()
    options: dict[str, str] = field(default_factory=dict)

    @property
    def view(self) -> Literal["whole", "retrieved"]:
        """The context that the answering model reads."""
        return "retrieved" if self.kind in ("rag", "rag-target") else "whole"


def parse_method(text: str) -> Method:
    """Return the method of a text "name:option=value,...".

    Options: law, eta (a number, auto or nearest), tail, tail_alpha, proposer, draft (tokens or auto),
    max_draft_length and chunks (a value of `chunk_cache`) of "rapid"; draft of "sd" and "magicdec"; sinks and recent
    (tokens) of "magicdec"; drafts, passages, rationale and rationale_tokens of "speculative_rag"; retrieved (tokens)
    and context=unrelated of all that retrieve.

    Raises:
        ConfigurationError: the method or option is unknown, or the value is invalid.
    """
    kind, _, rest = text.partition(":")
    if kind not in METHODS:
        raise ConfigurationError(f"no method is called {kind!r}; there are: {', '.join(METHODS)}")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in _OPTIONS[kind] or not equals:
            known = ", ".join(_OPTIONS[kind]) or "no options"
            raise ConfigurationError(f"{text!r}: {part!r} is not an option of {kind}; it has {known}, as option=value")
        options[key] = value
    if options.get("context", "unrelated") != "unrelated":
        raise ConfigurationError(f"{text!r}: context takes 'unrelated'; leave it out for the question's own text")
    speculation: dict[str, Any] = dict(_SPECULATION[kind])
    for key in _OF_SPECULATION:
        if key in options:
            speculation[_SHORT.get(key, key)] = _number(options[key])
    if kind == "magicdec":
        speculation["draft_sinks"] = _tokens(options, "sinks", text) or PAPER_SINKS
    return Method(
        name=text,
        kind=kind,
        speculation=SpeculationConfig(**speculation),
        retrieved=_tokens(options, "retrieved", text),
        unrelated="context" in options,
        recent=_tokens(options, "recent", text),
        drafting=SpeculativeRAGConfig(
            **{name: _number(options[name]) for name in SpeculativeRAGConfig.model_fields if name in options}
        ),
        options=options,
    )


def _number(value: str) -> Any:
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        return value


def _tokens(options: dict[str, str], key: str, text: str) -> int | None:
    if key not in options:
        return None
    if not options[key].isdecimal() or int(options[key]) < 1:
        raise ConfigurationError(f"{text!r}: {key}={options[key]!r} must be a number of tokens, at least 1")
    return int(options[key])
