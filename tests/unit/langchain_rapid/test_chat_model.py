"""Tools through the model's own chat template, and answers that keep to a schema."""

import json
from typing import Annotated

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from langchain_rapid import ChatRapid
from rapid_integrations import ConfigurationError, PromptError
from tests.toys.langchain_llms import DOCUMENT, QUESTION, make_engine
from tests.toys.models import CHATML, words


@tool
def add(a: Annotated[int, Field(ge=0, le=9)], b: Annotated[int, Field(ge=0, le=9)]) -> int:
    """Add two numbers."""
    return a + b


@tool
def flip(heads: bool) -> str:
    """Say which side of a coin it is."""
    return "heads" if heads else "tails"


class Size(BaseModel):
    """How large it is."""

    large: bool
    digit: int = Field(ge=0, le=9)


class SizeDict(TypedDict):
    """How large it is."""

    large: Annotated[bool, ..., "whether it is"]


SIZE_SCHEMA = {"type": "object", "properties": {"large": {"type": "boolean"}}, "required": ["large"]}


@pytest.fixture
def talkative(engine):
    return ChatRapid(engine=engine, max_tokens=200)


class TestTools:
    @pytest.mark.parametrize("choice", ["any", "required", True, {"type": "function", "function": {"name": "add"}}])
    def test_a_required_call(self, talkative, choice):
        bound = talkative.bind_tools([add, flip], tool_choice=choice, parallel_tool_calls=False)
        message = bound.invoke(QUESTION)
        assert message.response_metadata["finish_reason"] == "tool_calls" and len(message.tool_calls) == 1
        call = message.tool_calls[0]
        assert call["type"] == "tool_call" and call["id"] and call["name"] in ("add", "flip")
        assert {"add": add, "flip": flip}[call["name"]].invoke(call).tool_call_id == call["id"]

    def test_one_by_name(self, talkative):
        message = talkative.bind_tools([add, flip], tool_choice="flip").invoke(QUESTION)
        assert {call["name"] for call in message.tool_calls} == {"flip"}

    async def test_streamed(self, talkative):
        bound = talkative.bind_tools([flip], tool_choice="any", parallel_tool_calls=False)
        whole = bound.invoke(QUESTION)
        total = None
        for piece in bound.stream(QUESTION):
            total = piece if total is None else total + piece
        asynchronous = None
        async for piece in bound.astream(QUESTION):
            asynchronous = piece if asynchronous is None else asynchronous + piece
        for message in (total, asynchronous, await bound.ainvoke(QUESTION)):
            assert [(c["name"], c["args"]) for c in message.tool_calls] == [
                (c["name"], c["args"]) for c in whole.tool_calls
            ]

    def test_round_trip_through_the_template(self, chat, seen):
        call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_1", "type": "tool_call"}
        messages = [
            SystemMessage("Be exact."),
            HumanMessage("What is 1 + 2?"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("3", tool_call_id="call_1", name="add"),
        ]
        chat.bind_tools([add]).invoke(messages)
        text = seen[0].target.text
        told = json.dumps(add_declaration())
        assert text.startswith("<|im_start|>system\nBe exact.\n\n# Tools") and told in text
        tail = text[text.index("<|im_start|>user") :]
        assert tail == (
            "<|im_start|>user\nWhat is 1 + 2?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
            '{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call><|im_end|>\n'
            "<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        )

    def test_of_many_kinds(self, chat):
        def plain(a: int) -> int:
            """A function."""
            return a

        bound = chat.bind_tools([add, plain, Size, add_declaration("other")])
        names = [each["function"]["name"] for each in bound.kwargs["tools"]]
        assert names == ["add", "plain", "Size", "other"]

    def test_a_template_without_tools(self):
        plain = ChatRapid(engine=make_engine(chat_template=CHATML))
        with pytest.raises(ConfigurationError, match="cannot call tools"):
            plain.bind_tools([add])
        assert isinstance(plain.bind_tools([]).invoke("hello"), AIMessage)

    def test_a_choice_that_there_is_not(self, chat):
        with pytest.raises(ConfigurationError, match="tool_choice='subtract'"):
            chat.bind_tools([add], tool_choice="subtract").invoke("hello")


class TestAgent:
    def test_retrieval_as_a_tool(self, engine, seen):
        """The model must call the tool first; what it finds is the context of the second call."""
        from langchain.agents import create_agent

        passages = words(4, 500)

        @tool
        def search(wide: bool) -> str:
            """Search the handbook."""
            return passages

        class Once(ChatRapid):
            """Made to call a tool in its first turn; a random model would not by itself."""

            def _request(self, messages, stop, overrides, run_manager):
                first = not any(isinstance(message, ToolMessage) for message in messages)
                choice = "required" if first else "none"
                return super()._request(messages, stop, {**overrides, "tool_choice": choice}, run_manager)

        agent = create_agent(Once(engine=engine, max_tokens=120), [search])
        result = agent.invoke({"messages": [("human", QUESTION)]})
        kinds = [message.type for message in result["messages"]]
        assert kinds[:2] == ["human", "ai"] and kinds[2] == "tool" and kinds[-1] == "ai"
        found = seen[-1]
        assert found.target.segmentation == "tool messages" and found.target.query == QUESTION
        assert set(found.target.contexts) == {passages}
        assert len(found.drafter.text) < len(found.target.text)

    def test_tools_and_a_format_of_the_provider(self, engine, seen):
        """`create_agent(response_format=ProviderStrategy(...), tools=[...])`: each turn is a call or the object."""
        from langchain.agents import create_agent
        from langchain.agents.structured_output import ProviderStrategy

        class Once(ChatRapid):
            """Made to call a tool in its first turn and to answer in its second; the grammar alone allows either."""

            def _request(self, messages, stop, overrides, run_manager):
                assert overrides["tools"] and overrides["response_format"]["type"] == "json_schema"
                first = not any(isinstance(message, ToolMessage) for message in messages)
                choice = "required" if first else "none"
                overrides = {**overrides, "tool_choice": choice, "parallel_tool_calls": False}
                return super()._request(messages, stop, overrides, run_manager)

        agent = create_agent(Once(engine=engine, max_tokens=200), [flip], response_format=ProviderStrategy(Size))
        result = agent.invoke({"messages": [("human", QUESTION)]})
        assert isinstance(result["structured_response"], Size)
        assert [message.type for message in result["messages"]] == ["human", "ai", "tool", "ai"]
        assert "As soon as no further call is needed, answer with one JSON object that follows" in seen[0].target.text
        assert "\n\nAnswer with one JSON object" in seen[1].target.text

    @pytest.mark.parametrize("seed", range(3))
    def test_an_agent_is_free_to_choose(self, engine, seed):
        from langchain.agents import create_agent
        from langchain.agents.structured_output import ProviderStrategy
        from langgraph.errors import GraphRecursionError

        chat = ChatRapid(engine=engine, max_tokens=200, temperature=1.5, seed=seed)
        agent = create_agent(chat, [flip], response_format=ProviderStrategy(Size))
        try:
            result = agent.invoke({"messages": [("human", QUESTION)]}, {"recursion_limit": 7})
        except GraphRecursionError:
            return  # a model without sense may call for ever
        assert isinstance(result["structured_response"], Size)


class TestStructuredOutput:
    def test_what_no_grammar_says_is_checked(self, talkative):
        ones = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2, "uniqueItems": True}
        schema = {"title": "Ones", "type": "object", "properties": {"ones": ones}, "required": ["ones"]}
        with pytest.raises(OutputParserException, match="non-unique"):
            talkative.with_structured_output(schema).invoke("Which?")
        found = talkative.with_structured_output(schema, include_raw=True).invoke("Which?")
        assert found["parsed"] is None and "non-unique" in str(found["parsing_error"])

    @pytest.mark.in_turn(2)
    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    @pytest.mark.parametrize("schema", [Size, SizeDict, SIZE_SCHEMA])
    async def test_every_kind_of_schema(self, talkative, schema, method):
        chain = talkative.with_structured_output(schema, method=method)
        found = chain.invoke("Is it large?")
        assert isinstance(found, Size) if schema is Size else found["large"] in (True, False)
        assert list(chain.stream("Is it large?"))[-1] == found
        assert await chain.ainvoke("Is it large?") == found

    def test_the_schema_is_shown_behind_the_question(self, talkative, seen):
        prompt = ChatPromptTemplate.from_messages([("human", "{context}\n\n{question}")])
        (prompt | talkative.with_structured_output(SIZE_SCHEMA)).invoke({"context": DOCUMENT, "question": QUESTION})
        assert seen[0].target.contexts == (DOCUMENT,) and seen[0].target.query == QUESTION
        schema = json.dumps({**SIZE_SCHEMA, "additionalProperties": False})
        assert f"{DOCUMENT}\n\n{QUESTION}\n\nAnswer with one JSON object" in seen[0].target.text
        assert schema in seen[0].target.text and schema in seen[0].drafter.text

    def test_where_the_context_is_found_in_the_text(self, talkative, seen):
        long = words(4, 500)
        talkative.with_structured_output(SIZE_SCHEMA).invoke(f"{long}\n\n{QUESTION}")
        assert seen[0].target.segmentation == "heuristic"
        assert seen[0].target.contexts == (long,) and seen[0].target.query == QUESTION

    def test_raw(self, talkative):
        found = talkative.with_structured_output(Size, include_raw=True).invoke("Is it large?")
        assert isinstance(found["raw"], AIMessage) and isinstance(found["parsed"], Size)
        assert found["parsing_error"] is None

    def test_an_answer_that_was_cut_off(self, engine):
        short = ChatRapid(engine=engine, max_tokens=3)
        with pytest.raises(OutputParserException, match="raise max_tokens"):
            short.with_structured_output(Size).invoke("Is it large?")
        with pytest.raises(OutputParserException, match="cut off"):
            list(short.with_structured_output(Size).stream("Is it large?"))
        found = short.with_structured_output(Size, include_raw=True).invoke("Is it large?")
        assert found["parsed"] is None and isinstance(found["parsing_error"], OutputParserException)

    def test_json_mode(self, engine):
        chain = ChatRapid(engine=engine, max_tokens=400, stop=[]).with_structured_output(
            {**SIZE_SCHEMA, "title": "Size"}, method="json_mode", include_raw=True
        )
        assert chain.invoke("Give me JSON.")["raw"].content.lstrip().startswith("{")

    def test_response_format(self, talkative):
        wanted = {"type": "json_schema", "json_schema": {"name": "size", "schema": SIZE_SCHEMA}}
        assert "large" in json.loads(talkative.invoke("Is it large?", response_format=wanted).content)
        with pytest.raises(ConfigurationError, match="response_format"):
            talkative.invoke("hello", response_format={"type": "xml"})
        with pytest.raises(ConfigurationError, match="response_format"):
            talkative.invoke("hello", response_format={"type": "json_schema", "json_schema": None})

    def test_response_format_in_other_forms(self, talkative):
        wanted = {"type": "json_schema", "name": "size", "schema": SIZE_SCHEMA}  # of the Responses API
        of_json_mode = {"type": "json_object", "schema": SIZE_SCHEMA}  # of llama.cpp and other servers
        for form in (wanted, of_json_mode, Size):
            assert "large" in json.loads(talkative.bind(response_format=form).invoke("Is it large?").content)

    def test_a_method_that_there_is_not(self, chat):
        with pytest.raises(ConfigurationError, match="json_schema, function_calling, json_mode"):
            chat.with_structured_output(Size, method="yaml")


class TestMessages:
    def test_blocks_of_text(self, chat, seen):
        chat.invoke([HumanMessage([{"type": "text", "text": "one "}, "two"])])
        assert "one two" in seen[0].target.text

    def test_other_blocks_are_refused(self, chat):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,xx"}}
        with pytest.raises(PromptError, match="'image_url'.*text only"):
            chat.invoke([HumanMessage([image])])

    def test_reasoning_is_not_repeated(self, chat, seen):
        answer = AIMessage([{"type": "reasoning", "reasoning": "hidden"}, {"type": "text", "text": "shown"}])
        chat.invoke([HumanMessage("a"), answer, HumanMessage("b")])
        assert "shown" in seen[0].target.text and "hidden" not in seen[0].target.text

    def test_none(self, chat):
        with pytest.raises(PromptError):
            chat.invoke([])

    def test_control_tokens_in_a_message_are_text(self, chat, seen):
        chat.invoke("a <|im_end|> b")
        assert seen[0].target_ids.count(259) == chat.rapid_engine.explain("a b").target_ids.count(259)


def add_declaration(name="add"):
    properties = {key: {"maximum": 9, "minimum": 0, "type": "integer"} for key in ("a", "b")}
    parameters = {"properties": properties, "required": ["a", "b"], "type": "object"}
    return {"type": "function", "function": {"name": name, "description": "Add two numbers.", "parameters": parameters}}
