"""Tools of LlamaIndex: their declarations in a request, and the calls in an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from llama_index_rapid.errors import raised_within
from llama_index_rapid.spans import no_span
from rapid_integrations.errors import ConfigurationError, IncompleteOutputError

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse


class ToolCalling(FunctionCallingLLM):
    """Implements the methods of `FunctionCallingLLM` other than the endpoints."""

    @no_span
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(role="user", content=user_msg) if isinstance(user_msg, str) else user_msg)
        choice = tool_choice_of(kwargs.pop("tool_choice", None))
        prepared: dict[str, Any] = {"messages": messages, **kwargs}
        if tools:
            prepared["tools"] = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
            # A streaming program does not mark the tool that makes its answer as required.
            required = tool_required or all(map(_is_an_answers_class, tools))
            prepared["tool_choice"] = choice or ("required" if required else "auto")
            prepared["parallel_tool_calls"] = allow_parallel_tool_calls
        return prepared

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the tools that the model calls, with parsed arguments.

        Raises:
            ValueError: there is no call, and `error_on_no_tool_call` is set.
            IncompleteOutputError: the only call was cut off or is not JSON.
        """
        calls = [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=call.tool_kwargs if isinstance(call.tool_kwargs, dict) else {},
            )
            for call in response.message.blocks
            if isinstance(call, ToolCallBlock)
        ]
        if calls:
            return calls
        if invalid := response.message.additional_kwargs.get("invalid_tool_calls"):
            return [_selection_of_invalid(call) for call in invalid]
        if error_on_no_tool_call:
            reason = response.raw.get("finish_reason") if isinstance(response.raw, Mapping) else None
            if reason == "length":
                raise IncompleteOutputError(
                    f"the model called no tool before its answer {response.message.content!r:.200} was cut off: raise "
                    "max_new_tokens"
                )
            raise ValueError(
                f"the model called no tool, it answered {response.message.content!r:.200}. tool_required=True enforces "
                "a call"
            )
        return []

    @no_span  # the inherited method has a span
    def predict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> AgentChatResponse:
        """Call a tool; see `FunctionCallingLLM.predict_and_call`.

        If the model's chat template does not support tools, the prompt describes them, as with `ReActAgent`. Errors of
        such a request are raised, whereas LlamaIndex itself would return them as the answer.
        """
        with raised_within() as errors:
            response = super().predict_and_call(tools, *args, **self._in_words(kwargs))
        return _unless(errors, response)

    @no_span
    async def apredict_and_call(self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any) -> AgentChatResponse:
        """Call a tool without blocking the event loop; see `predict_and_call`."""
        with raised_within() as errors:
            response = await super().apredict_and_call(tools, *args, **self._in_words(kwargs))
        return _unless(errors, response)

    def _in_words(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options, with the formatter and parser that LlamaIndex's agent needs for a model without tools."""
        if self.metadata.is_function_calling_model:
            return options
        from llama_index.core.agent.react import ReActChatFormatter, ReActOutputParser

        return {"react_chat_formatter": ReActChatFormatter(), "output_parser": ReActOutputParser(), **options}


def tool_choice_of(choice: Any) -> str | None:
    """Return a tool choice in the engine's form: "auto", "required", "none", a tool's name, or None if not given.

    OpenAI's and Anthropic's forms are accepted, too: {"type": "function", "function": {"name": ...}}, {"type":
    "function", "name": ...}, {"type": "tool", "name": ...}, {"type": "any"}, "any", True and False.

    Raises:
        ConfigurationError: the choice has another form.
    """
    if choice is None or choice is False:
        return None if choice is None else "none"
    if choice is True:
        return "required"
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        given = name or choice.get("type")
    else:
        given = choice
    if not isinstance(given, str) or not given or (isinstance(choice, Mapping) and given in ("function", "tool")):
        raise ConfigurationError(
            f'tool_choice={choice!r:.200} is not valid: give "auto", "required", "none", a tool\'s name, or '
            '{"type": "function", "function": {"name": ...}}'
        )
    return "required" if given == "any" else given


def _is_an_answers_class(tool: BaseTool) -> bool:
    """Return whether LlamaIndex made the tool from a class to get an object of it. The answer is then a call."""
    function = getattr(tool, "fn", None)
    return getattr(function, "__qualname__", "") == "get_function_tool.<locals>.model_fn"


def _selection_of_invalid(call: Mapping[str, Any]) -> ToolSelection:
    """Return a complete call of an undeclared tool, which agents report to the model. Refuse other invalid calls."""
    name, arguments = call.get("name"), call.get("arguments")
    try:
        parsed = json.loads(arguments or "")
    except ValueError:
        parsed = None
    if not name or not isinstance(parsed, dict):
        raise IncompleteOutputError(
            f"the model's call of {name or 'a tool'} cannot be made: {call.get('error')}. Written so far: "
            f"{arguments!r:.200}. If it was cut off, raise max_new_tokens"
        )
    return ToolSelection(tool_id="", tool_name=name, tool_kwargs=parsed)


def _unless(errors: Sequence[BaseException], response: AgentChatResponse) -> AgentChatResponse:
    if errors and not response.sources:
        raise errors[-1]
    return response
