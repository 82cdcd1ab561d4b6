"""llama-index-core's mock models over `RapidLLM`: the same text, but asked of an engine, decoded and parsed by us."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import llama_index.core.llms.mock as mock
from llama_index.core.base.llms.generic_utils import messages_to_prompt as generic_messages_to_prompt
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from llama_index_rapid import RapidLLM
from tests.hosts.puppet import puppet_engine, writing


class PuppetLLM(RapidLLM):
    """`RapidLLM` whose every answer is made up by `_answer_to`; what is asked and how it is answered is not touched."""

    def __init__(self, *, chat: bool, **settings: Any) -> None:
        """Take a mock's arguments; those that are None are not given."""
        given = {name: value for name, value in settings.items() if value is not None}
        super().__init__(engine=puppet_engine(chat), count_with_own_tokenizer=False, **given)

    def _answer_to(self, asked: str | Sequence[ChatMessage], settings: dict[str, Any]) -> str:
        raise NotImplementedError

    # Without a prompt at all it is for the real method to say so.

    def complete(self, *args: Any, **kwargs: Any) -> Any:
        with writing(self._answer_to_prompt(*args, **kwargs)):
            return super().complete(*args, **kwargs)

    def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
        with writing(self._answer_to_prompt(*args, **kwargs)):
            return super().stream_complete(*args, **kwargs)

    async def acomplete(self, *args: Any, **kwargs: Any) -> Any:
        with writing(self._answer_to_prompt(*args, **kwargs)):
            return await super().acomplete(*args, **kwargs)

    async def astream_complete(self, *args: Any, **kwargs: Any) -> Any:
        with writing(self._answer_to_prompt(*args, **kwargs)):
            return await super().astream_complete(*args, **kwargs)

    def _answer_to_prompt(self, prompt: str = "", formatted: bool = False, **settings: Any) -> str:
        return self._answer_to(prompt, settings)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        with writing(self._answer_to(messages, kwargs)):
            return super().chat(messages, **kwargs)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        with writing(self._answer_to(messages, kwargs)):
            return super().stream_chat(messages, **kwargs)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        with writing(self._answer_to(messages, kwargs)):
            return await super().achat(messages, **kwargs)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        with writing(self._answer_to(messages, kwargs)):
            return await super().astream_chat(messages, **kwargs)


class MockLLM(PuppetLLM):
    """Repeats what it is asked, or says "text" `max_tokens` times."""

    max_tokens: int | None = None
    is_chat_model: bool | None = False

    def __init__(self, max_tokens: int | None = None, is_chat_model: bool | None = False, **settings: Any) -> None:
        super().__init__(chat=bool(is_chat_model), max_tokens=max_tokens, is_chat_model=is_chat_model, **settings)

    @classmethod
    def class_name(cls) -> str:
        return "MockLLM"

    def _answer_to(self, asked: str | Sequence[ChatMessage], settings: dict[str, Any]) -> str:
        if self.max_tokens:
            return " ".join(["text"] * self.max_tokens)
        return str(asked) if isinstance(asked, str) else (self.messages_to_prompt or generic_messages_to_prompt)(asked)


class MockFunctionCallingLLM(PuppetLLM):
    """Says what its `response_generator` returns, tool calls included; without one it calls every tool once."""

    tool_calls: list[ToolCallBlock] = Field(default_factory=list)
    blocks_to_content_callback: Any = Field(default=mock._default_blocks_to_content_callback)
    is_chat_model: bool | None = False
    max_tokens: int | None = None
    _response_generator: Any = PrivateAttr(default=None)

    def __init__(self, response_generator: Any = None, **settings: Any) -> None:
        super().__init__(chat=True, **settings)
        self._response_generator = response_generator

    # As the mock has them: from its last message, its tool results, its tools.
    _get_response_generator = mock.MockFunctionCallingLLM._get_response_generator
    response_generator = mock.MockFunctionCallingLLM.response_generator

    @classmethod
    def class_name(cls) -> str:
        return "MockFunctionCallingLLM"

    def _answer_to(self, asked: str | Sequence[ChatMessage], settings: dict[str, Any]) -> str:
        if isinstance(asked, str):
            return str(asked)
        if settings.get("tools"):
            settings = {**settings, "tools": [declared(tool) for tool in settings["tools"]]}
        make = self._get_response_generator()
        takes_settings = any(given.kind is given.VAR_KEYWORD for given in inspect.signature(make).parameters.values())
        return written(make(asked, **settings) if takes_settings else make(asked))


def declared(tool: dict[str, Any]) -> SimpleNamespace:
    """Return what the mock's own generator reads of a tool: its name, and which arguments have which defaults."""
    function = tool["function"]
    parameters = function.get("parameters", {})
    required = parameters.get("required", [])
    fields = {name: _Argument(name in required, schema) for name, schema in parameters.get("properties", {}).items()}
    return SimpleNamespace(
        metadata=SimpleNamespace(name=function["name"], fn_schema=SimpleNamespace(model_fields=fields))
    )


class _Argument:
    """An argument as pydantic's `FieldInfo` tells of it."""

    def __init__(self, required: bool, schema: dict[str, Any]) -> None:
        self._required, self._schema = required, schema

    def is_required(self) -> bool:
        return self._required

    def get_default(self, call_default_factory: bool = True) -> Any:
        return self._schema.get("default")


def written(message: ChatMessage) -> str:
    """Return what a model of Qwen's kind writes to say `message`."""
    calls = [(block.tool_name, block.tool_kwargs) for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls += [(call.tool_name, call.tool_kwargs) for call in message.additional_kwargs.get("tool_calls", [])]
    parts = [message.content] if message.content else []
    for name, arguments in calls:
        arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
        parts.append(f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {arguments}}}\n</tool_call>')
    return "\n".join(parts)


class _Remembers:
    """Keeps the messages of the last chat, and the names of the chat methods that were called."""

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        response = super().chat(messages, **kwargs)
        return self._remember(messages, "chat", response)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        response = super().stream_chat(messages, **kwargs)
        return self._remember(messages, "stream_chat", response)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        response = await super().achat(messages, **kwargs)
        return self._remember(messages, "achat", response)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        response = await super().astream_chat(messages, **kwargs)
        return self._remember(messages, "astream_chat", response)

    def _remember(self, messages: Sequence[ChatMessage], name: str, response: Any) -> Any:
        self.last_chat_messages = messages
        self.last_called_chat_function.append(name)
        return response

    def reset_memory(self) -> None:
        self.last_chat_messages = None
        self.last_called_chat_function = []


class MockLLMWithChatMemoryOfLastCall(_Remembers, MockLLM):
    """`MockLLM` that can be asked what it was sent."""

    last_chat_messages: Any = Field(default=None, exclude=True)
    last_called_chat_function: list[str] = Field(default=[], exclude=True)


class MockFunctionCallingLLMWithChatMemoryOfLastCall(_Remembers, MockFunctionCallingLLM):
    """`MockFunctionCallingLLM` that can be asked what it was sent."""

    last_chat_messages: Any = Field(default=None, exclude=True)
    last_called_chat_function: list[str] = Field(default=[], exclude=True)


MOCKS = (
    MockLLM,
    MockFunctionCallingLLM,
    MockLLMWithChatMemoryOfLastCall,
    MockFunctionCallingLLMWithChatMemoryOfLastCall,
)


def install() -> None:
    """Put them in the mocks' place, wherever llama-index-core itself has imported those."""
    import llama_index.core.llms.utils  # noqa: F401  it imports MockLLM

    for new in MOCKS:
        old = getattr(mock, new.__name__)
        for name, module in list(sys.modules.items()):
            if name.startswith("llama_index.") and getattr(module, new.__name__, None) is old:
                setattr(module, new.__name__, new)
