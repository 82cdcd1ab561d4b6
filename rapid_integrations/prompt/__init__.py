"""Prompts: a request's text, the parts of it that are retrieved context, and the question. Imports no torch.

A user builds a `Prompt`. `RenderedPrompt` is the exact text that the target reads (with the chat template applied),
with the same spans located in it. The drafter's text is the same text with only the context spans replaced.
"""

from __future__ import annotations

from rapid_integrations.prompt.chat_template import ChatTemplate
from rapid_integrations.prompt.parts import join_parts
from rapid_integrations.prompt.prompt import DEFAULT_TEMPLATE, Message, Prompt, PromptLike
from rapid_integrations.prompt.rendered import RenderedPrompt
from rapid_integrations.prompt.rendering import render
from rapid_integrations.prompt.template_arguments import NO_ARGUMENTS, TemplateArguments

__all__ = [
    "DEFAULT_TEMPLATE",
    "NO_ARGUMENTS",
    "ChatTemplate",
    "Message",
    "Prompt",
    "PromptLike",
    "RenderedPrompt",
    "TemplateArguments",
    "join_parts",
    "render",
]
