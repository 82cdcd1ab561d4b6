"""What a request asks: text, which parts of it are retrieved context, and the question. Imports no torch.

`Prompt` is what a user builds; `RenderedPrompt` is the exact text that the target reads (chat template applied) with
the same spans found in it. The drafter's text is that text with the context spans replaced, nothing else changed.
"""

from __future__ import annotations

from rapid_integrations.prompt.chat_template import ChatTemplate
from rapid_integrations.prompt.parts import join_parts
from rapid_integrations.prompt.prompt import DEFAULT_TEMPLATE, Message, Prompt, PromptLike
from rapid_integrations.prompt.rendered import RenderedPrompt
from rapid_integrations.prompt.rendering import render

__all__ = [
    "DEFAULT_TEMPLATE",
    "ChatTemplate",
    "Message",
    "Prompt",
    "PromptLike",
    "RenderedPrompt",
    "join_parts",
    "render",
]
