"""Calls of GPT-OSS, whose answers consist of channels.

`<|channel|>analysis<|message|>...<|end|><|start|>assistant` is followed by
`<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>`.

This is the one format that is known and not read from the template: the template writes earlier calls in another order
than the model writes new ones, and both orders occur.
Source: OpenAI, "OpenAI harmony response format".
"""

from __future__ import annotations

from rapid_integrations.tool_calls.call_format import CallFormat

_CHANNELS = ("commentary", "analysis")
_TYPES = (" <|constrain|>json", " json", "")
_WAYS = (
    *((f"<|channel|>{channel} to=functions.", f"{of}<|message|>") for channel in _CHANNELS for of in _TYPES),
    *((" to=functions.", f"<|channel|>{channel}{of}<|message|>") for channel in _CHANNELS for of in _TYPES),
)

HARMONY = CallFormat(
    before="",
    head=_WAYS[0][0],
    middle=_WAYS[0][1],
    tail="",
    between="",
    after="",
    id_tail=None,
    parallel=False,
    arguments_as_text=False,
    marker="",
    keys=None,
    closing="",
    also=_WAYS[1:],
    openings_of_text=tuple(f"<|channel|>{channel}<|message|>" for channel in ("analysis", "final", "commentary")),
)


def is_harmony(answer: str) -> bool:
    """Whether a template's text for a call is GPT-OSS's."""
    return " to=functions." in answer and "<|channel|>" in answer and "<|message|>" in answer
