"""What tracers see: one span for each call, with counts, finish reasons and tool calls in the words that they know."""

import json
from types import SimpleNamespace

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.callbacks.token_counting import get_tokens_from_response
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher

from llama_index_rapid.responses import Answer
from rapid_integrations import ConfigurationError, IncompleteOutputError, ToolCall
from tests.toys.chat_templates import QWEN25
from tests.toys.llama_index_llms import make_llm
from tests.toys.verdict import Verdict

MESSAGES = [ChatMessage(role="user", content="hello")]


class Spans(BaseSpanHandler[SimpleSpan]):
    """Notes the method of every span."""

    names: list[str] = []

    def new_span(self, id_, bound_args, instance=None, parent_span_id=None, tags=None, **kwargs):
        self.names.append(id_.rsplit("-", 5)[0])
        return SimpleSpan(id_=id_, parent_id=parent_span_id)

    def prepare_to_exit_span(self, id_, bound_args, instance=None, result=None, **kwargs):
        return None

    def prepare_to_drop_span(self, id_, bound_args, instance=None, err=None, **kwargs):
        return None


@pytest.fixture
def spans():
    handler = Spans()
    handler.names = []
    dispatcher = get_dispatcher()
    dispatcher.add_span_handler(handler)
    yield handler.names
    dispatcher.span_handlers.remove(handler)


@pytest.fixture(scope="module")
def tool_llm():
    return make_llm(chat_template=QWEN25, max_new_tokens=200)


def add(left: int, right: bool) -> str:
    """Add two things."""
    return f"{left} and {right}"


TOOL = FunctionTool.from_defaults(add)
DRAWN = {"temperature": 1.0, "seed": 3}
REQUIRED = {"user_msg": "Add them.", "tool_required": True, **DRAWN}


async def test_one_span_for_each_call(llm, spans):
    llm.complete("hello")
    list(llm.stream_complete("hello"))
    llm.chat(MESSAGES)
    list(llm.stream_chat(MESSAGES))
    await llm.acomplete("hello")
    [piece async for piece in await llm.astream_complete("hello")]
    await llm.achat(MESSAGES)
    [piece async for piece in await llm.astream_chat(MESSAGES)]
    forms = ("complete", "stream_complete", "chat", "stream_chat")
    assert spans == [f"RapidLLM.{form}" for form in (*forms, *(f"a{form}" for form in forms))]
    spans.clear()
    llm.predict(PromptTemplate("{query_str}"), query_str="hello")
    assert spans == ["RapidLLM.predict", "RapidLLM.chat"]


async def test_one_span_for_each_call_with_tools_or_a_class(llm, tool_llm, spans):
    tool_llm.chat_with_tools([TOOL], **REQUIRED)
    await tool_llm.achat_with_tools([TOOL], **REQUIRED)
    assert spans == ["RapidLLM.chat", "RapidLLM.achat"]
    spans.clear()
    tool_llm.predict_and_call([TOOL], **REQUIRED)
    assert [name for name in spans if "Tool" not in name] == ["RapidLLM.predict_and_call", "RapidLLM.chat"]
    spans.clear()
    llm.structured_predict(Verdict, PromptTemplate("{query_str}"), {"max_new_tokens": 200}, query_str="so?")
    assert spans == ["RapidLLM.structured_predict", "RapidProgram.__call__", "RapidLLM.chat"]


@pytest.mark.parametrize("kind", ["chat", "base"])
async def test_token_counts_of_streams_are_in_the_last_response(llm, base_llm, kind):
    used = llm if kind == "chat" else base_llm
    streams = [
        list(used.stream_complete("hello")),
        [piece async for piece in await used.astream_complete("hello")],
        list(used.stream_chat(MESSAGES)),
        [piece async for piece in await used.astream_chat(MESSAGES)],
    ]
    for *before, last in streams:
        usage = last.raw["usage"]
        assert usage["completion_tokens"] > 0 and usage["prompt_tokens"] > 0
        assert last.additional_kwargs == {
            name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        assert get_tokens_from_response(last) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert all(piece.additional_kwargs == {} for piece in before)


def test_a_handler_counts_a_streamed_completion():
    counter = TokenCountingHandler(tokenizer=lambda text: pytest.fail("counted by a tokenizer"))
    llm = make_llm(callback_manager=CallbackManager([counter]))
    last = list(llm.stream_complete("hello"))[-1]
    assert counter.total_llm_token_count == last.raw["usage"]["total_tokens"]


def test_finish_reasons_are_the_ecosystems(llm, tool_llm):
    assert llm.complete("hello", max_new_tokens=1).raw["finish_reason"] == "length"
    answers = (llm.complete("hello", max_new_tokens=60, temperature=2.0, seed=seed).raw for seed in range(200))
    ended = next(raw for raw in answers if raw["stats"]["finish_reason"] == "eos")
    assert ended["finish_reason"] == "stop"
    text = llm.complete("hello", max_new_tokens=12).text
    stopped = llm.complete("hello", max_new_tokens=12, stop=(text[1:2],)).raw
    assert stopped["finish_reason"] == "stop" == stopped["stats"]["finish_reason"]
    called = tool_llm.chat_with_tools([TOOL], **REQUIRED).raw
    assert called["finish_reason"] == "tool_calls" == called["stats"]["finish_reason"]


def test_tool_calls_show_their_arguments(tool_llm):
    message = tool_llm.chat_with_tools([TOOL], **REQUIRED).message
    (block,) = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    (call,) = message.additional_kwargs["tool_calls"]  # as OpenAI writes it, which is what tracers read
    assert call["type"] == "function" and call["id"] == block.tool_call_id
    assert call["function"]["name"] == "add" == block.tool_name
    assert json.loads(call["function"]["arguments"]) == block.tool_kwargs and block.tool_kwargs


@pytest.mark.parametrize(
    "choice",
    [
        "add",
        {"type": "function", "function": {"name": "add"}},
        {"type": "function", "name": "add"},
        {"type": "tool", "name": "add"},
        {"type": "any"},
        "any",
        "required",
        True,
    ],
    ids=str,
)
def test_a_choice_of_tools_in_the_words_of_others(tool_llm, choice):
    other = FunctionTool.from_defaults(lambda: "x", name="other", description="not this one")
    tools = [TOOL, other] if "add" in str(choice) else [TOOL]
    response = tool_llm.chat_with_tools(tools, user_msg="Add them.", tool_choice=choice, **DRAWN)
    assert [call.tool_name for call in tool_llm.get_tool_calls_from_response(response)] == ["add"]
    declared = [tool.metadata.to_openai_tool() for tool in tools]
    direct = tool_llm.chat(MESSAGES, tools=declared, tool_choice=choice, parallel_tool_calls=False, **DRAWN)
    assert [call.tool_name for call in tool_llm.get_tool_calls_from_response(direct)] == ["add"]


@pytest.mark.parametrize("choice", [{}, {"type": "function"}, {"function": {}}, 3, ""], ids=str)
def test_no_choice_of_tools(tool_llm, choice):
    with pytest.raises(ConfigurationError, match="tool_choice=.* is not valid"):
        tool_llm.chat_with_tools([TOOL], user_msg="Add them.", tool_choice=choice)


# --- calls that cannot be made --------------------------------------------------------------------------------------


def ended(text="", calls=(), invalid=(), reason="length"):
    """Return the last chunk of an answer, as an engine that tells invalid calls apart gives it."""
    return SimpleNamespace(
        text=text, tool_calls=calls, invalid_tool_calls=invalid, finish_reason=reason, usage=None, stats=None
    )


def response_of(chunk):
    answer = Answer("m")
    answer.add(chunk)
    return answer.chat()


CUT = SimpleNamespace(name="add", arguments='{"left": 1', error="cut off by max_new_tokens")
UNKNOWN = SimpleNamespace(name="subtract", arguments='{"left": 1}', error="there is no tool 'subtract'")


def test_a_call_that_is_cut_off_is_an_error_and_not_the_answer(tool_llm):
    response = response_of(ended("Let me see.", invalid=(CUT,)))
    assert response.message.content == "Let me see." and "tool_calls" not in response.message.additional_kwargs
    assert response.message.additional_kwargs["invalid_tool_calls"] == [vars(CUT)]
    for raising in (True, False):
        with pytest.raises(IncompleteOutputError, match="call of add cannot be made: cut off by max_new_tokens"):
            tool_llm.get_tool_calls_from_response(response, error_on_no_tool_call=raising)


def test_a_call_of_no_tool_goes_to_the_agent_which_says_so(tool_llm):
    (call,) = tool_llm.get_tool_calls_from_response(response_of(ended(invalid=(UNKNOWN,), reason="eos")))
    assert (call.tool_name, call.tool_kwargs) == ("subtract", {"left": 1})


def test_calls_that_can_be_made_are_made(tool_llm):
    whole = ToolCall(id="1", name="add", arguments={"left": 1, "right": True})
    (call,) = tool_llm.get_tool_calls_from_response(response_of(ended(calls=(whole,), invalid=(CUT,))))
    assert call.tool_kwargs == whole.arguments


def test_a_required_call_that_is_cut_off(tool_llm):
    with pytest.raises(IncompleteOutputError, match="a tool call could not be made"):
        tool_llm.chat_with_tools([TOOL], **REQUIRED, max_new_tokens=6)
    with pytest.raises(IncompleteOutputError, match="a tool call could not be made"):
        list(tool_llm.stream_chat_with_tools([TOOL], **REQUIRED, max_new_tokens=6))


def test_an_answer_without_calls_says_so(tool_llm):
    answer = ChatResponse(message=ChatMessage(role="assistant", content="no"), raw={"finish_reason": "stop"})
    assert tool_llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []
