"""The fake chat models of langchain's and langgraph's tests over `ChatRapid`: the same messages, decoded and parsed."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, is_dataclass
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel, fake_chat_models
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BaseModel

from langchain_rapid import ChatRapid
from tests.hosts.puppet import puppet_engine, told, writing


class PuppetChat(ChatRapid):
    """`ChatRapid` whose every answer is made up by `_message_for`; how it is asked and answered is not touched.

    Ids and metadata are the made-up message's in the end, because tests compare whole messages.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, engine=puppet_engine(), **settings)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Leave out what a test's own class has only because the fakes cannot bind tools: these here can."""
        super().__init_subclass__(**kwargs)
        if "bind_tools" in vars(cls):
            del cls.bind_tools

    def _message_for(self, messages: list[BaseMessage], settings: dict[str, Any]) -> AIMessage:
        raise NotImplementedError

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if told():
            return super()._generate(messages, *args, **kwargs)
        made = self._message_for(messages, kwargs)
        with writing(written(made)):
            result = super()._generate(messages, *args, **kwargs)
        label_as(made, result.generations[0])
        result.llm_output = None  # langchain-core makes metadata of it
        return result

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if told():
            return await super()._agenerate(messages, *args, **kwargs)
        if type(self)._generate is not PuppetChat._generate:
            return await BaseChatModel._agenerate(self, messages, *args, **kwargs)  # a test's own: the fakes go there
        made = self._message_for(messages, kwargs)
        with writing(written(made)):
            result = await super()._agenerate(messages, *args, **kwargs)
        label_as(made, result.generations[0])
        result.llm_output = None  # langchain-core makes metadata of it
        return result

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        if told():
            yield from super()._stream(messages, *args, **kwargs)
            return
        made = self._message_for(messages, kwargs)
        pieces = super()._stream(messages, *args, **kwargs)
        with writing(written(made)):  # the request is made when the first piece is asked for
            piece = next(pieces, None)
        while piece is not None:
            label_as(made, piece)
            yield piece
            piece = next(pieces, None)

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        if told():
            async for piece in super()._astream(messages, *args, **kwargs):
                yield piece
            return
        made = self._message_for(messages, kwargs)
        pieces = super()._astream(messages, *args, **kwargs)
        with writing(written(made)):
            piece = await anext(pieces, None)
        while piece is not None:
            label_as(made, piece)
            yield piece
            piece = await anext(pieces, None)


def written(message: AIMessage) -> str:
    """Return what a model of Qwen's kind writes to say `message`."""
    parts = [message.text] if message.text else []
    for call in message.tool_calls:
        said = json.dumps({"name": call["name"], "arguments": call["args"]})
        parts.append(f"<tool_call>\n{said}\n</tool_call>")
    return "\n".join(parts)


def label_as(made: AIMessage, generation: ChatGeneration) -> None:
    """Give an answer the ids and the metadata of `made`; what it says and which tools it calls stays as it is."""
    answer = generation.message
    assert isinstance(answer, AIMessage)
    if made.id:
        answer.id = made.id
    for calls in (answer.tool_calls, getattr(answer, "tool_call_chunks", [])):
        for call, made_call in zip(calls, made.tool_calls, strict=False):
            call["id"] = made_call["id"]
    answer.response_metadata, answer.usage_metadata = made.response_metadata, made.usage_metadata
    generation.generation_info = None  # of this, too


class FakeToolCallingModel(PuppetChat):
    """Repeats the messages and makes the next of its `tool_calls`; says its `structured_response` if asked by schema.

    The same class serves the tests of langchain and those of langgraph.
    """

    tool_calls: Any = None
    structured_response: Any = None
    index: int = 0
    tool_style: Literal["openai", "anthropic"] = "openai"

    @property
    def _llm_type(self) -> str:
        return "fake-tool-call-model"

    def _message_for(self, messages: list[BaseMessage], settings: dict[str, Any]) -> AIMessage:
        by_schema = settings.get("response_format")
        if settings.get("structured"):  # of with_structured_output, which the fake answers without a request
            return AIMessage(content=_as_json(self.structured_response))
        calls = []
        if self.tool_calls and (not by_schema or self.index < len(self.tool_calls)):
            calls = self.tool_calls[self.index % len(self.tool_calls)]
        must_call = settings.get("tool_choice") not in (None, "auto", "none")
        if by_schema and not calls:
            content = _as_json(self.structured_response)
        elif calls and must_call:  # a call and nothing else
            content = ""
        else:
            content = "-".join(message.text for message in messages)
        made = AIMessage(content=content, id=str(self.index), tool_calls=[dict(call) for call in calls])
        self.index += 1
        return made


class GenericFakeChatModel(PuppetChat):
    """Says the next of its `messages`."""

    messages: Any

    @property
    def _llm_type(self) -> str:
        return "generic-fake-chat-model"

    def _message_for(self, messages: list[BaseMessage], settings: dict[str, Any]) -> AIMessage:
        made = next(self.messages)
        if isinstance(made, str):
            return AIMessage(content=made)
        if settings.get("structured") and made.tool_calls:  # with_structured_output: a call is how the fake answers
            return AIMessage(content=json.dumps(made.tool_calls[0]["args"]))
        return made


def _as_json(content: Any) -> str:
    if isinstance(content, BaseModel):
        content = content.model_dump()
    elif is_dataclass(content) and not isinstance(content, type):
        content = asdict(content)
    return json.dumps(content)


def install(tests_model: str) -> None:
    """Put them in the fakes' place: langchain-core's, and the one of the suite's module `tests_model`."""
    import langchain_core.language_models as language_models

    for module in (fake_chat_models, language_models):
        module.GenericFakeChatModel = GenericFakeChatModel  # type: ignore[assignment,misc,attr-defined]
    importlib.import_module(tests_model).FakeToolCallingModel = FakeToolCallingModel  # type: ignore[attr-defined]
