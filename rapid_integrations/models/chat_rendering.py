"""Rendering a chat template that came with a model: bounded in steps and memory, its failures errors of ours.

transformers runs templates in a sandbox, from which they cannot reach files; but they may loop for hours. No template
that people use needs more than some hundred steps for a message.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from jinja2.utils import Namespace

from rapid_integrations.errors import ModelLoadError, PromptError
from rapid_integrations.models.template_date import pin_date

MOST_STEPS = 500_000  # lines of a template's code; about a second
PROBE_STEPS = 20_000  # for a few words
_LARGE = 1 << 24  # characters of a text inside a template, or four times what it was given
_LONGEST = 4 << 20  # characters of a template
_HUGE = 10_000_000  # no number in a chat template is as large
_WIDE = re.compile(r"[%:<>^=]\s*\d{7,}")  # a width in a format string


class _TooMuch(Exception):
    """A template that would not end, or whose text would not."""


def render_template(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    date: datetime | None = None,
    most_steps: int = MOST_STEPS,
) -> str:
    """Return what a tokenizer's chat template writes; see `Vocabulary.render_chat`. `most_steps` bounds its work.

    Raises:
        PromptError: the template refuses the messages, writes nothing, or does not come to an end.
    """
    template = tokenizer.chat_template
    # Several templates by name (a dict): transformers chooses, and no date is pinned.
    chosen = pin_date(template, date) if isinstance(template, str) and date is not None else None
    try:
        with _bounded(_Bound(most_steps, max(_LARGE, 4 * _characters(messages)))):
            text = tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=chosen,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
            )
    except Exception as error:  # templates raise jinja2 errors of their own making ("roles must alternate")
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise PromptError(f"the model's chat template refuses these messages: {reason}") from error
    if not isinstance(text, str) or not text.strip():
        raise PromptError(
            "the model's chat template writes nothing for these messages. Give the text as it is "
            "(apply_chat_template=False), or use a model with another template"
        )
    return text


def check_template(name: str, template: Any) -> None:
    """Refuse a chat template that is none, or that counts in numbers no template needs.

    Raises:
        ModelLoadError: with what is wrong with it.
    """
    if template is None or template == "":
        return
    named = template if isinstance(template, dict) else {"default": template}
    for key, text in named.items():
        if not isinstance(text, str):
            raise ModelLoadError(
                f"{name} could not be loaded: its chat template is a {type(text).__name__}, not a text. Repair "
                "chat_template in tokenizer_config.json, or remove it"
            )
        if len(text) > _LONGEST:
            raise ModelLoadError(f"{name} could not be loaded: its chat template {key!r} has {len(text):,} characters")
        if (bomb := _bomb(text)) is not None:
            raise ModelLoadError(
                f"{name} could not be loaded: its chat template {bomb}, which no chat template needs; it would use up "
                "time or memory. Remove it from the template, if you trust the rest"
            )


def _bomb(template: str) -> str | None:
    """Return what in a template would already explode while it is compiled, in words; None: nothing found.

    A template that cannot be parsed at all is left to the rendering, which says why.
    """
    from jinja2 import TemplateError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        extensions = ["jinja2.ext.loopcontrols", "jinja2.ext.do"]
        tree = ImmutableSandboxedEnvironment(extensions=extensions).parse(template)
        if next(iter(tree.find_all(nodes.Pow)), None) is not None:
            return "takes numbers to a power"
        for constant in tree.find_all(nodes.Const):
            value = constant.value
            if isinstance(value, int) and abs(value) > _HUGE:
                return f"holds the number {value:,}"[:60]
            if isinstance(value, str) and _WIDE.search(value):
                return "formats something millions of characters wide"
    except (TemplateError, RecursionError):
        return None
    return None


@contextmanager
def _bounded(bound: _Bound) -> Iterator[None]:
    """Stop a template inside that runs too long or grows too large.

    Nothing is bounded under a debugger or a coverage tool, whose place in the interpreter this needs.
    """
    if sys.gettrace() is not None:
        yield
        return
    sys.settrace(bound.on_call)
    try:
        yield
    finally:
        sys.settrace(None)


class _Bound:
    """Counts the lines that a template's code runs through, and looks at what it holds at each of them."""

    def __init__(self, most_steps: int, large: int) -> None:
        self._steps = 0
        self._most_steps = most_steps
        self._large = large

    def on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Follow the frames of templates only: their code is compiled under the name "<template>"."""
        return self.on_line if frame.f_code.co_filename == "<template>" else None

    def on_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Raise in the template when it has had its share."""
        if event != "line":
            return self.on_line
        self._steps += 1
        if self._steps > self._most_steps:
            raise _TooMuch(f"it does not come to an end (within {self._most_steps:,} steps)")
        for value in frame.f_locals.values():
            if self._is_large(value):
                raise _TooMuch("its text grows without end")
        return self.on_line

    def _is_large(self, value: Any) -> bool:
        if isinstance(value, (str, list, tuple)):
            return len(value) > self._large
        if issubclass(type(value), Namespace):  # {% set ns = namespace(...) %}
            return any(
                map(self._is_large, object.__getattribute__(value, "__dict__").get("_Namespace__attrs", {}).values())
            )
        return False


def _characters(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(value) for message in messages for value in message.values() if isinstance(value, str))
