"""Renders a model's own chat template with bounded steps and memory, and turns its failures into this package's errors.

transformers runs templates in a sandbox. They cannot reach files there, but they may loop for hours. Templates in real
use need at most a few hundred steps per message.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from jinja2.utils import Namespace

from rapid_integrations.errors import ModelLoadError, PromptError
from rapid_integrations.models.template_date import pin_date
from rapid_integrations.prompt import NO_ARGUMENTS, TemplateArguments

MOST_STEPS = 500_000  # lines of a template's code; about a second
PROBE_STEPS = 20_000  # for a probe of a few words
_LARGE = 1 << 24  # characters of a text inside a template; four times the messages' length if that is more
_LONGEST = 4 << 20  # characters of a template
_HUGE = 10_000_000  # real chat templates hold no larger number
_WIDE = re.compile(r"[%:<>^=]\s*\d{7,}")  # a width in a format string


class _TooMuch(Exception):
    """A template runs too long or its text grows too large."""


def render_template(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    date: datetime | None = None,
    most_steps: int = MOST_STEPS,
    arguments: TemplateArguments = NO_ARGUMENTS,
) -> str:
    """Return what a tokenizer's chat template writes; see `Vocabulary.render_chat`. `most_steps` bounds its run time.

    Raises:
        PromptError: the template refuses the messages, writes nothing, or runs too long.
    """
    template = tokenizer.chat_template
    # If there are several templates by name (a dict), transformers chooses one and no date is pinned.
    chosen = pin_date(template, date) if isinstance(template, str) and date is not None else None
    try:
        with _bounded(_Bound(most_steps, max(_LARGE, 4 * (_characters(messages) + len(arguments.key))))):
            text = tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=chosen,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **arguments.as_dict(),
            )
    except Exception as error:  # templates raise their own jinja2 errors ("roles must alternate")
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise PromptError(f"the model's chat template refuses these messages: {reason}") from error
    if not isinstance(text, str) or not text.strip():
        raise PromptError(
            "the model's chat template writes nothing for these messages. Give the text as it is "
            "(apply_chat_template=False), or use a model with another template"
        )
    return text


def check_template(name: str, template: Any) -> None:
    """Refuse a chat template that is not text, or that holds numbers larger than real templates need.

    Raises:
        ModelLoadError: the template is refused; the message has the reason.
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
    """Describe what would exhaust time or memory while a template is compiled; None if nothing is found.

    A template that cannot be parsed is not refused here. Rendering it reports the syntax error.
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


_TRACING = threading.Lock()  # CPython refuses a trace function while another thread's is being installed


@contextmanager
def _bounded(bound: _Bound) -> Iterator[None]:
    """Stop a template that runs too long or grows too large inside the block.

    Under a debugger or a coverage tool nothing is bounded, because those occupy the trace function that this needs.
    """
    if sys.gettrace() is not None:
        yield
        return
    with _TRACING:
        sys.settrace(bound.on_call)
    try:
        yield
    finally:
        with _TRACING:
            sys.settrace(None)


class _Bound:
    """Counts the executed lines of a template's code, and checks the size of its variables at each line."""

    def __init__(self, most_steps: int, large: int) -> None:
        self._steps = 0
        self._most_steps = most_steps
        self._large = large

    def on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Follow the frames of templates only: their code is compiled under the name "<template>"."""
        return self.on_line if frame.f_code.co_filename == "<template>" else None

    def on_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Raise inside the template if it exceeds a bound."""
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
