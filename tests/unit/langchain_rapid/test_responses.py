"""What an answer carries, as judges, token counters, caches, checkpoints and agents read it."""

import json
import math

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    message_chunk_to_message,
    messages_from_dict,
    messages_to_dict,
)

from langchain_rapid import ChatRapid, RapidLLM
from langchain_rapid.responses import Responses
from rapid_integrations import Completion, CompletionChunk, InvalidToolCall, RetrievedChunk
from tests.toys.langchain_llms import DOCUMENT, QUESTION
from tests.toys.puppet import call, puppet

PROMPT = f"Read this.\n{DOCUMENT}\n{QUESTION}"
MARKED = {"rapid_context": DOCUMENT, "rapid_query": QUESTION}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}


def added(pieces):
    total = None
    for piece in pieces:
        total = piece if total is None else total + piece
    return total


def info_of(result):
    found = result.generations[0][0]
    return found.message.response_metadata if hasattr(found, "message") else found.generation_info


def ragas_is_finished(result):
    """ragas 0.3, llms/base.py, `LangchainLLMWrapper.is_finished`: what it accepts as a finished answer."""
    info = result.generations[0][0].generation_info
    return info["finish_reason"] in ("stop", "STOP", "MAX_TOKENS", "eos_token")


class TestFinishReasons:
    @pytest.mark.parametrize("cls", [RapidLLM, ChatRapid])
    async def test_an_answer_that_ended_by_itself_is_finished_in_every_form(self, cls):
        model = cls(engine=puppet(*["Fine."] * 4))
        whole = model.generate_prompt([model._convert_input("How?")])
        assert ragas_is_finished(whole)
        info = info_of(whole)
        assert info["finish_reason"] == "stop" and info["rapid"]["finish_reason"] == "eos"
        assert info_of(await model.agenerate_prompt([model._convert_input("How?")]))["finish_reason"] == "stop"
        if cls is ChatRapid:
            total = added(model.stream("How?"))
            assert (total.content, total.response_metadata["finish_reason"]) == ("Fine.", "stop")
            total = added([piece async for piece in model.astream("How?")])
            assert total.response_metadata["finish_reason"] == "stop"
            assert total.response_metadata["model_name"] == "puppet"

    @pytest.mark.parametrize("cls", [RapidLLM, ChatRapid])
    def test_a_stop_string_and_the_number_of_tokens(self, cls):
        model = cls(engine=puppet("Fine. Thanks.", "Fine. Thanks."))
        info = info_of(model.generate_prompt([model._convert_input("How?")], stop=[" T"]))
        assert info["finish_reason"] == info["rapid"]["finish_reason"] == "stop"
        cut = model.generate_prompt([model._convert_input("How?")], max_tokens=3)
        assert info_of(cut)["finish_reason"] == info_of(cut)["rapid"]["finish_reason"] == "length"
        assert not ragas_is_finished(cut)

    def test_a_call(self):
        chat = ChatRapid(engine=puppet(call("add", '{"a": 1}')))
        answer = chat.bind_tools([TOOL]).invoke("Add.")
        assert answer.response_metadata["finish_reason"] == "tool_calls" and answer.tool_calls[0]["args"] == {"a": 1}

    def test_of_a_streamed_plain_llm(self):
        llm = RapidLLM(engine=puppet("Fine."))
        total = added(llm._stream("How?"))
        assert (total.text, total.generation_info["finish_reason"]) == ("Fine.", "stop")


class TestUsage:
    def test_callbacks_count(self):
        chat = ChatRapid(engine=puppet("Fine.", "Fine."))
        with get_usage_metadata_callback() as counted:
            first, second = chat.invoke("How?"), added(chat.stream("How?"))
        assert first.usage_metadata["output_tokens"] == second.usage_metadata["output_tokens"] == 6
        assert counted.usage_metadata["puppet"]["output_tokens"] == 12

    def test_under_openais_names(self):
        chat = ChatRapid(engine=puppet("Fine.", "Fine."))
        result = chat.generate([[HumanMessage("How?")], [HumanMessage("And you?")]])
        usage = [made[0].message.response_metadata["token_usage"] for made in result.generations]
        assert [each["completion_tokens"] for each in usage] == [6, 6]
        assert result.llm_output["token_usage"] == {name: usage[0][name] + usage[1][name] for name in usage[0]}
        assert result.llm_output["model_name"] == "puppet"


class TestRetrieved:
    def test_places_and_scores_by_default(self, either):
        info = info_of(either.generate_prompt([either._convert_input(PROMPT)], **MARKED))
        chunks = info["rapid"]["retrieved"]
        assert chunks and all(set(chunk) == {"context", "start", "end", "tokens", "score"} for chunk in chunks)

    @pytest.mark.parametrize("cls", [RapidLLM, ChatRapid])
    def test_texts_on_request(self, engine, cls):
        model = cls(engine=engine, return_retrieved=True)
        prompt = [model._convert_input(PROMPT)]
        chunks = info_of(model.generate_prompt(prompt, **MARKED))["rapid"]["retrieved"]
        assert chunks and all(DOCUMENT[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in chunks)
        without = info_of(model.generate_prompt(prompt, return_retrieved=False, **MARKED))
        assert not any("text" in chunk for chunk in without["rapid"]["retrieved"])

    def test_a_stream(self, chat):
        last = list(chat.stream(PROMPT, return_retrieved=True, **MARKED))[-1]
        assert last.response_metadata["rapid"]["retrieved"][0]["text"] in DOCUMENT
        last = list(chat.stream(PROMPT, **MARKED))[-1]
        assert "text" not in last.response_metadata["rapid"]["retrieved"][0]

    def test_everything_is_json(self, either):
        json.dumps(info_of(either.generate_prompt([either._convert_input(PROMPT)], **MARKED)), allow_nan=False)

    def test_scores_that_are_no_numbers(self, chat):
        answer = chat.rapid_engine.generate("hello", sampling=chat.rapid_engine.sampling)
        chunk = RetrievedChunk(context=0, start=0, end=3, text="abc", tokens=1, score=math.nan)
        info = Responses((chunk,)).generation(answer).generation_info
        assert info["rapid"]["retrieved"][0]["score"] is None
        json.dumps(info, allow_nan=False)

    def test_a_message_survives_its_way_to_disk_and_back(self, chat):
        answer = chat.invoke(PROMPT, **MARKED)
        assert messages_from_dict(json.loads(json.dumps(messages_to_dict([answer]), allow_nan=False))) == [answer]

    def test_a_checkpoint_does_not_hold_the_document_again_in_every_answer(self, chat):
        """At 1,000 characters of context, three answers with their texts would bring the document along three times."""
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.graph import START, MessagesState, StateGraph

        def answer(state, **told):
            return {"messages": [chat.invoke([HumanMessage(PROMPT), *state["messages"]], **MARKED, **told)]}

        sizes = {}
        for texts in (False, True):
            builder = StateGraph(MessagesState)
            builder.add_node("answer", lambda state, texts=texts: answer(state, return_retrieved=texts))
            builder.add_edge(START, "answer")
            saver = InMemorySaver()
            graph = builder.compile(checkpointer=saver)
            config = {"configurable": {"thread_id": "one"}}
            for number in range(3):
                graph.invoke({"messages": [("human", f"{number} {QUESTION}")]}, config)
            answers = [m for m in graph.get_state(config).values["messages"] if isinstance(m, AIMessage)]
            kept = [sum(c["end"] - c["start"] for c in m.response_metadata["rapid"]["retrieved"]) for m in answers]
            sizes[texts] = len(saver.serde.dumps_typed(graph.get_state(config).values)[1])
        assert len(answers) == 3 and sizes[True] - sizes[False] >= sum(kept) > 0
        assert sizes[False] < 3 * 2000


INVALID = InvalidToolCall(name="add", arguments='{"a": 1, "b', error="cut off by max_new_tokens")


@pytest.fixture
def cut(chat):
    answer = chat.rapid_engine.generate("hello").model_copy(update={"finish_reason": "length"})
    return {**dict(answer), "text": "Let me add. ", "invalid_tool_calls": (INVALID,)}


class TestInvalidCalls:
    """`arguments` is JSON that was cut: LangChain's own chunks complete such a text and make a valid call of it."""

    def test_whole(self, cut):
        message = Responses().chat_generation(Completion(**cut)).message
        (found,) = message.invalid_tool_calls
        assert message.tool_calls == [] and message.content == "Let me add. "
        assert (found["name"], found["args"], found["error"]) == ("add", INVALID.arguments, INVALID.error)
        assert found["type"] == "invalid_tool_call" and found["id"]

    def test_streamed(self, cut):
        last = {name: cut[name] for name in CompletionChunk.model_fields if name in cut}
        pieces = [CompletionChunk(text="Let me ", token_ids=(1,)), CompletionChunk(**{**last, "text": "add. "})]
        total = added(Responses().chat_chunk(piece).message for piece in pieces)
        for message in (total, message_chunk_to_message(total)):
            (found,) = message.invalid_tool_calls
            assert message.tool_calls == [] and message.content == "Let me add. "
            assert (found["name"], found["args"].lstrip("\ufeff")) == ("add", INVALID.arguments)
        info = Responses().chat_chunk(pieces[1]).generation_info
        assert info["rapid"]["invalid_tool_calls"] == [{"name": "add", "error": INVALID.error}]

    @pytest.mark.parametrize("form", ["invoke", "stream"])
    def test_of_the_engine(self, form):
        engine = puppet("Let me add. " + call("add", '{"a": 12345678901234567890}'))
        chat = ChatRapid(engine=engine, max_tokens=60).bind_tools([TOOL])
        message = chat.invoke("Add.") if form == "invoke" else added(chat.stream("Add."))
        assert message.response_metadata["finish_reason"] == "length"
        assert message.tool_calls == [] and "tool_call" not in message.content
        assert message.invalid_tool_calls[0]["name"] == "add" and '{"a": 1234' in message.invalid_tool_calls[0]["args"]
