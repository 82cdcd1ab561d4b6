"""Thinking comes apart from the answer: over HTTP, in LangChain's messages and in LlamaIndex's."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.base.llms.types import TextBlock, ThinkingBlock
from llama_index.core.llms import ChatMessage

from langchain_rapid import ChatRapid
from langchain_rapid import RapidLLM as LangChainLLM
from llama_index_rapid import RapidLLM
from rapid_integrations import Chat, StructuredOutput
from tests.toys.chat_templates import QWEN3
from tests.toys.served import client_of, events, running
from tests.toys.server_app import HELLO, app_of
from tests.toys.thinking import OPENED, showing, thinking_engine
from tests.toys.tool_callers import TOOLS

THOUGHT, ANSWER = "It is late, and he is tired.", "Go home. <think> is a word."
WRITTEN = {QWEN3: f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}", OPENED: f"{THOUGHT}\n</think>\n\n{ANSWER}"}
CHAT = "/v1/chat/completions"

__all__ = ["app_of"]  # a fixture


@pytest.fixture(scope="module", params=WRITTEN, ids=["qwen3", "opened by the prompt"])
def engine(request):
    with thinking_engine(WRITTEN[request.param], request.param) as made:
        assert made.generate("What now?").text == WRITTEN[request.param]
        yield made


@pytest.fixture(scope="module")
def client(engine, app_of):
    with running(app_of(engine=engine)) as address, client_of(address) as made:
        yield made


def test_a_server_gives_it_as_reasoning_content(client, engine):
    body = {"model": "tiny", "messages": HELLO}
    message = client.post(CHAT, json=body).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == (THOUGHT, ANSWER)
    pieces, ended = events(client.post(CHAT, json={**body, "stream": True, "n": 2}).text)
    assert ended
    for index in range(2):
        deltas = [c["delta"] for each in pieces for c in each["choices"] if c["index"] == index]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == THOUGHT
        assert "".join(delta.get("content", "") for delta in deltas) == ANSWER
    whole = client.post(CHAT, json={**body, "separate_reasoning": False}).json()["choices"][0]["message"]
    assert whole["content"] == engine.generate(HELLO).text and "reasoning_content" not in whole
    text = client.post("/v1/completions", json={"model": "tiny", "prompt": "Hello <|im_start|>assistant\n"}).json()
    assert "<think>" in text["choices"][0]["text"] or engine.explain("x").target.text.endswith("<think>\n")


def test_a_schema_and_a_call_hold_no_thinking(client):
    schema = {"type": "object", "properties": {"a": {"enum": ["<think>x</think>"]}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 200}
    message = client.post(CHAT, json={**body, "response_format": form}).json()["choices"][0]["message"]
    assert "reasoning_content" not in message and message["content"].startswith("{")
    called = client.post(CHAT, json={**body, "tools": TOOLS, "tool_choice": "required"}).json()["choices"][0]["message"]
    assert called["tool_calls"] and "reasoning_content" not in called


def test_sources_have_their_places_in_the_answer(app_of):
    answer = "The garage in Mill Lane costs twenty euros a month."
    text = f"Rents. {answer} " + "Nothing else is known about it. " * 5
    with (
        thinking_engine(f"<think>\nMill Lane costs something.\n</think>\n\n{answer}") as engine,
        running(app_of(engine=engine)) as address,
        client_of(address) as client,
    ):
        assert engine.generate([{"role": "user", "content": f"{text}\n\nWhat does the garage cost?"}]).text
        rapid = {"documents": [{"text": text, "name": "rents.txt"}]}
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "What does the garage cost?"}],
            "rapid": rapid,
        }
        found = client.post(CHAT, json=body).json()
        content = found["choices"][0]["message"]["content"]
        assert content == answer
        placed = [each for each in found["rapid"]["sources"] if "answer_start" in each]
        assert placed and all(content[each["answer_start"] : each["answer_end"]] == answer for each in placed)


def test_langchains_messages_have_it_beside_their_content(engine):
    chat = ChatRapid(engine=engine)
    for message in (chat.invoke("What now?"), asyncio.run(chat.ainvoke("What now?"))):
        assert (message.content, message.additional_kwargs["reasoning_content"]) == (ANSWER, THOUGHT)
    whole = None
    for piece in chat.stream("What now?"):
        whole = piece if whole is None else whole + piece
    assert (whole.content, whole.additional_kwargs["reasoning_content"]) == (ANSWER, THOUGHT)
    again = chat.invoke([HumanMessage("What now?"), message, HumanMessage("And then?")])  # history goes on
    assert again.content == ANSWER
    form = StructuredOutput(regex="<think>a</think>b")
    assert chat.invoke("What now?", structured=form).content == "<think>a</think>b"
    assert LangChainLLM(engine=engine).invoke("What now?").endswith(f"</think>\n\n{ANSWER}")  # a text is one text


def test_llama_indexs_messages_have_a_block_of_it(engine):
    llm = RapidLLM(engine=engine)
    asked = [ChatMessage(role="user", content="What now?")]
    streamed = list(llm.stream_chat(asked))
    assert "".join(each.delta for each in streamed) == ANSWER
    for response in (llm.chat(asked), asyncio.run(llm.achat(asked)), streamed[-1]):
        thoughts = [block.content for block in response.message.blocks if isinstance(block, ThinkingBlock)]
        assert (thoughts, response.message.content) == ([THOUGHT], ANSWER)
    assert llm.chat([*asked, response.message, ChatMessage(role="user", content="And?")]).message.content == ANSWER
    assert llm.complete("What now?").text.endswith(f"</think>\n\n{ANSWER}")


CALLING = f'<think>\n{THOUGHT}\n</think>\n\nI look.\n<tool_call>\n{{"name": "now", "arguments": {{}}}}\n</tool_call>'
SHOWN = f"assistant\n<think>\n{THOUGHT}\n</think>\n\nI look.\n<tool_call>"


@pytest.fixture(scope="module")
def calling():
    with thinking_engine(CALLING, showing()) as made:
        yield made


@pytest.fixture
def read(calling, monkeypatch):
    """The texts that the model read."""
    texts = []
    ask = type(calling).stream

    def stream(engine, *given, **options):
        made = ask(engine, *given, **options)
        texts.append(made.prepared.target.text)
        return made

    monkeypatch.setattr(type(calling), "stream", stream)
    return texts


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_server_gave_as_thinking_comes_back_to_the_template(calling, app_of, name):
    with running(app_of(engine=calling)) as address, client_of(address) as client:
        body = {"model": "tiny", "messages": [*HELLO], "tools": TOOLS, "max_tokens": 200}
        first = client.post(CHAT, json=body).json()["choices"][0]["message"]
        assert (first["reasoning_content"], first["content"]) == (THOUGHT, "I look.")
        back = {("reasoning" if key == "reasoning_content" else key): value for key, value in first.items()}
        back = first if name == "reasoning_content" else back
        result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "Noon."}
        counts = {}
        for kind, message in (("with", back), ("without", {**first, "reasoning_content": None})):
            answer = client.post(CHAT, json={**body, "messages": [*HELLO, message, result]})
            counts[kind] = answer.json()["usage"]["prompt_tokens"]
        messages = [*HELLO, {**first, "content": "I look."}, result]
        expected = calling.count_tokens(messages, tools=TOOLS)
        assert counts == {"with": expected, "without": expected - len(f"<think>\n{THOUGHT}\n</think>\n\n".encode())}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": THOUGHT},
        {"type": "reasoning", "reasoning": THOUGHT},
        {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
    ],
    ids=["thinking", "reasoning", "mistral"],
)
def test_a_server_takes_thinking_as_a_part_of_an_answer(calling, app_of, part):
    with running(app_of(engine=calling)) as address, client_of(address) as client:
        said = {"role": "assistant", "content": [part, {"type": "text", "text": "I look."}]}
        body = {"model": "tiny", "messages": [*HELLO, said, {"role": "user", "content": "And?"}]}
        counted = client.post(CHAT, json=body).json()["usage"]["prompt_tokens"]
        told = {"role": "assistant", "content": "I look.", "reasoning_content": THOUGHT}
        assert counted == calling.count_tokens([*HELLO, told, body["messages"][-1]])
        asked = {"model": "tiny", "messages": [{"role": "user", "content": [part]}]}
        assert client.post(CHAT, json=asked).status_code == 400  # only an answer has thinking


def test_langchains_thinking_comes_back_to_the_template(calling, read):
    chat = ChatRapid(engine=calling).bind_tools(TOOLS)
    for first in (chat.invoke("What now?"), sum_of(chat.stream("What now?"))):
        assert first.additional_kwargs["reasoning_content"] == THOUGHT and first.tool_calls
        chat.invoke([HumanMessage("What now?"), first, ToolMessage("Noon.", tool_call_id=first.tool_calls[0]["id"])])
        assert SHOWN in read[-1]
    for block in ({"type": "thinking", "thinking": THOUGHT}, {"type": "reasoning", "reasoning": THOUGHT}):
        said = AIMessage([block, {"type": "text", "text": "Good day."}])
        chat.invoke([HumanMessage("What now?"), said, HumanMessage("And?")])
        assert f"<think>\n{THOUGHT}\n</think>\n\nGood day.<|im_end|>" in read[-1]


def sum_of(pieces):
    whole = None
    for piece in pieces:
        whole = piece if whole is None else whole + piece
    return whole


def test_llama_indexs_thinking_comes_back_to_the_template(calling, read):
    llm = RapidLLM(engine=calling)
    asked = ChatMessage(role="user", content="What now?")
    first = llm.chat([asked], tools=TOOLS).message
    assert [block.content for block in first.blocks if isinstance(block, ThinkingBlock)] == [THOUGHT]
    result = ChatMessage(role="tool", content="Noon.", additional_kwargs={"tool_call_id": "1"})
    llm.chat([asked, first, result], tools=TOOLS)
    assert SHOWN in read[-1]
    kept = ChatMessage(role="assistant", blocks=[TextBlock(text="Good day.")])
    kept.additional_kwargs["reasoning_content"] = THOUGHT
    llm.chat([asked, kept, asked])
    assert f"<think>\n{THOUGHT}\n</think>\n\nGood day.<|im_end|>" in read[-1]


def test_a_chat_gives_thinking_back_apart_from_its_answer(read):
    with thinking_engine(f"<think>\n{THOUGHT}\n</think>\n\nGood day.", showing()) as engine:
        chat = Chat(engine, "The garage in Mill Lane is closed.")
        for question in ("Is it open?", "And now?"):
            with chat.ask(question) as answer:
                assert [*answer]
        assert (chat.turns[0].answer, chat.turns[0].reasoning) == ("Good day.", THOUGHT)
        assert f"<think>\n{THOUGHT}\n</think>\n\nGood day.<|im_end|>" in read[-1]
        assert answer.text.startswith("<think>")  # the engine's own text stays whole
