"""The puppets say what they are told, through the whole of the product."""

import asyncio

import pytest
from langchain_core.language_models import fake_chat_models
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

from tests.hosts import puppet
from tests.hosts.langchain_models import FakeToolCallingModel, GenericFakeChatModel
from tests.hosts.llama_index_mocks import MockFunctionCallingLLM, MockLLM
from tests.hosts.puppet import puppet_engine, writing

TEXTS = ["", "plain words", "héllo 漢字 🎉 \u200d", "\x00\x1f  a  b \t\n\n", "word " * 300]


@pytest.mark.once
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_a_puppet_says_any_text(text, chat):
    engine = puppet_engine(chat)
    with writing(text):
        assert engine.generate("Say it. " + text).text == text
        assert "".join(chunk.text for chunk in engine.stream("Say it in pieces. " + text)) == text


async def test_tasks_are_told_apart():
    async def say(n):
        with writing(f"number {n}"):
            return (await puppet_engine().agenerate(f"Who are you, {n}?")).text

    assert await asyncio.gather(*(say(n) for n in range(4))) == [f"number {n}" for n in range(4)]


def test_a_prompt_of_50000_tokens():
    with writing("long"):
        assert puppet_engine().generate("0123456789 " * 5000).text == "long"


def test_the_last_answer_told_is_the_one():
    for text in ("first", "second"):
        with writing(text):
            assert puppet_engine().generate("The same prompt").text == text


def test_mock_llm_is_ours_and_echoes():
    before = puppet.requests_made
    llm = MockLLM()
    assert llm.complete("to be said").text == "to be said"
    assert MockLLM(max_tokens=3).complete("anything").text == "text text text"
    assert llm.chat([ChatMessage(role="user", content="hi")]).message.content == "user: hi\nassistant: "
    assert [piece.delta for piece in llm.stream_complete("a stream")][0] != ""
    assert puppet.requests_made == before + 4


async def test_mock_function_calling_llm_calls_through_the_template():
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    def calls(messages, **kwargs):
        block = {"block_type": "tool_call", "tool_call_id": "1", "tool_name": "add", "tool_kwargs": {"a": 1, "b": 5}}
        return ChatMessage(role="assistant", blocks=[block])

    llm = MockFunctionCallingLLM(response_generator=calls)
    response = await llm.achat_with_tools([FunctionTool.from_defaults(add)], user_msg="1 + 5?")
    (call,) = llm.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 1, "b": 5})


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return city


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_fake_tool_calling_model_calls_through_the_template(way):
    call = {"name": "weather", "args": {"city": "Ulm"}, "id": "7", "type": "tool_call"}
    model = FakeToolCallingModel(tool_calls=[[call], []]).bind_tools([weather])
    asked = [HumanMessage("Weather?")]
    if way == "invoke":
        first = model.invoke(asked)
    elif way == "ainvoke":
        first = await model.ainvoke(asked)
    elif way == "stream":
        first = sum_of(model.stream(asked))
    else:
        first = sum_of([piece async for piece in model.astream(asked)])
    assert first.tool_calls == [call]
    assert first.content.strip() == "Weather?" and first.id == "0"
    assert model.invoke(asked).tool_calls == []


def sum_of(pieces):
    total = None
    for piece in pieces:
        total = piece if total is None else total + piece
    return total


def test_fake_models_are_not_replaced_until_asked():
    assert fake_chat_models.GenericFakeChatModel is not GenericFakeChatModel
    model = GenericFakeChatModel(messages=iter(["one", AIMessage("two")]))
    assert [model.invoke("?").content for _ in range(2)] == ["one", "two"]


def test_a_forbidden_answer_is_short():
    class Listed(FakeToolCallingModel):
        def _message_for(self, messages, settings):
            return AIMessage(content="", tool_calls=[{"name": "weather", "args": {"town": 1}, "id": "1"}])

    answer = Listed().bind_tools([weather], tool_choice="weather").invoke("Weather?")
    assert [call["name"] for call in answer.tool_calls] == ["weather"]
    assert [*answer.tool_calls[0]["args"]] == ["city"]
