"""Answers that keep to a schema: every kind of schema, every way of asking; shown to the model once, and enforced."""

import enum
import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as OldBaseModel
from typing_extensions import TypedDict

from langchain_rapid import ChatRapid, RapidLLM
from langchain_rapid.structured_output import json_schema_of
from rapid_integrations import ConfigurationError, StructuredOutput
from tests.toys.langchain_llms import DOCUMENT, QUESTION, make_engine
from tests.toys.models import CHATML
from tests.toys.order_class import ORDER, Order
from tests.toys.puppet import call, puppet

agents = pytest.importorskip("langchain.agents")
strategies = pytest.importorskip("langchain.agents.structured_output")

TOLD = "Answer with one JSON object that follows this JSON schema:"


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int = Field(ge=0, le=150)


class OldPerson(OldBaseModel):
    """Somebody."""

    name: str
    age: int


@dataclass
class DataPerson:
    """Somebody."""

    name: str
    age: int


class DictPerson(TypedDict):
    """Somebody."""

    name: Annotated[str, ..., "what they are called"]
    age: int


SCHEMA = {"title": "Person", "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
SCHEMA["required"] = ["name", "age"]
FUNCTION = {
    "name": "person",
    "description": "Somebody.",
    "parameters": {k: v for k, v in SCHEMA.items() if k != "title"},
}
ADA = {"name": "Ada", "age": 36}
TEXT = json.dumps(ADA)


def person(name: str, age: int) -> str:
    """Somebody."""
    raise AssertionError("a schema is not called")


KINDS = {
    "pydantic": (Person, Person(**ADA)),
    "pydantic 1": (OldPerson, OldPerson(**ADA)),
    "dataclass": (DataPerson, DataPerson(**ADA)),
    "TypedDict": (DictPerson, ADA),
    "JSON schema": (SCHEMA, ADA),
    "OpenAI function": (FUNCTION, ADA),
    "function": (person, ADA),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


class TestWithStructuredOutput:
    @pytest.mark.in_turn(2)
    @pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
    async def test_every_kind_in_every_form(self, kind, method):
        schema, expected = kind
        chat = ChatRapid(engine=puppet(*[TEXT] * 5))
        chain = chat.with_structured_output(schema, method=method, strict=True)
        assert chain.invoke("Who?") == await chain.ainvoke("Who?") == expected
        assert list(chain.stream("Who?"))[-1] == [each async for each in chain.astream("Who?")][-1] == expected
        found = chat.with_structured_output(schema, method=method, include_raw=True).invoke("Who?")
        assert found["parsed"] == expected and found["raw"].content == TEXT and found["parsing_error"] is None
        for prepared, asked in zip(chat.rapid_engine.seen, chat.rapid_engine.asked, strict=True):
            shown = json.dumps(json_schema_of(schema))
            assert prepared.target.text.count(shown) == prepared.target.text.count(TOLD) == (method != "json_mode")
            enforced = asked["sampling"].structured.json_schema
            assert enforced == ({"type": "object"} if method == "json_mode" else json_schema_of(schema))

    @pytest.mark.parametrize(
        ("schema", "text", "expected"),
        [
            (list[int], "[1, 2]", [1, 2]),
            (Literal["yes", "no"], '"no"', "no"),
            (enum.Enum("Colour", {"RED": "red", "BLUE": "blue"}), '"red"', "red"),
            (Person | DataPerson, TEXT, Person(**ADA)),
            (dict[str, int], '{"a": 1}', {"a": 1}),
        ],
    )
    def test_other_types(self, schema, text, expected):
        found = ChatRapid(engine=puppet(text)).with_structured_output(schema).invoke("What?")
        assert getattr(found, "value", found) == expected

    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_a_strict_class_with_every_kind_of_field(self, method):
        chat = ChatRapid(engine=puppet(ORDER), max_tokens=800)
        assert chat.with_structured_output(Order, method=method).invoke("What?") == Order.model_validate_json(ORDER)

    def test_it_is_enforced_whatever_the_model_would_write(self):
        chat = ChatRapid(engine=puppet("Well, I think that Ada is 36."), max_tokens=300)
        found = chat.with_structured_output({"type": "object", "properties": {}}, include_raw=True).invoke("Who?")
        assert found["parsed"] == {}

    def test_json_mode_without_a_schema(self):
        assert ChatRapid(engine=puppet(TEXT)).with_structured_output(method="json_mode").invoke("Who?") == ADA
        with pytest.raises(ConfigurationError, match="needs a schema"):
            ChatRapid(engine=puppet()).with_structured_output()

    @pytest.mark.parametrize("schema", [3, "Person", object()])
    def test_what_is_no_schema(self, schema):
        with pytest.raises(ConfigurationError, match="no JSON schema can be made"):
            ChatRapid(engine=puppet()).with_structured_output(schema)

    def test_what_the_class_refuses(self):
        class Even(BaseModel):
            number: int

            def model_post_init(self, context):
                if self.number % 2:
                    raise ValueError("odd")

        chat = ChatRapid(engine=puppet('{"number": 3}', '{"number": 3}'))
        with pytest.raises(OutputParserException, match="demands more than its schema"):
            chat.with_structured_output(Even).invoke("Which?")
        found = chat.with_structured_output(Even, include_raw=True).invoke("Which?")
        assert found["parsed"] is None and isinstance(found["parsing_error"], OutputParserException)


class TestWhereItIsShown:
    def test_behind_the_question_and_to_both(self, chat, seen):
        messages = [SystemMessage(f"Use this.\n{DOCUMENT}"), HumanMessage(QUESTION)]
        chat.with_structured_output(Person, include_raw=True, rapid_context=DOCUMENT).invoke(messages)
        shown = f"{QUESTION}\n\n{TOLD}\n{json.dumps(json_schema_of(Person))}<|im_end|>\n<|im_start|>assistant\n"
        for text in (seen[0].target.text, seen[0].drafter.text):
            assert text.endswith(shown)
        assert seen[0].target.query == QUESTION and seen[0].target.contexts == (DOCUMENT,)

    def test_the_document_is_read_once(self):
        """What was read for an answer without a schema serves one with it, and the other way round."""
        chat = ChatRapid(engine=make_engine())
        messages = [SystemMessage(f"Use this.\n{DOCUMENT}"), HumanMessage(QUESTION)]
        chat.invoke(messages)
        found = chat.with_structured_output(Person, include_raw=True).invoke(messages)
        assert found["raw"].usage_metadata["input_token_details"]["cache_read"] > len(DOCUMENT)

    def test_where_the_question_is_pasted_below_the_document(self, chat, seen):
        from tests.toys.models import words

        long = words(4, 500)
        chat.with_structured_output(Person, include_raw=True).invoke(f"{long}\n\n{QUESTION}")
        assert seen[0].target.contexts == (long,) and seen[0].target.query == QUESTION

    def test_switched_off(self, engine, seen):
        quiet = ChatRapid(engine=engine, show_schema=False)
        quiet.with_structured_output(Person, include_raw=True).invoke("Who?")
        quiet.with_structured_output(Person, include_raw=True, show_schema=True).invoke("Who?")
        assert [TOLD in prepared.target.text for prepared in seen] == [False, True]

    def test_what_stands_in_the_prompt_is_not_shown_again(self, chat, seen):
        prompt = f"Who? Answer by {json.dumps(json_schema_of(Person))}"
        chat.with_structured_output(Person, include_raw=True).invoke(prompt)
        assert TOLD not in seen[0].target.text

    @pytest.mark.parametrize("how", ["response_format", "structured"])
    def test_however_it_is_asked_for(self, either, seen, how):
        wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
        settings = {"response_format": wanted} if how == "response_format" else {}
        settings = settings or {"structured": StructuredOutput(json_schema=SCHEMA)}
        either.invoke("Who?", **settings)
        assert seen[0].target.text.count(json.dumps(SCHEMA["properties"])[:-1]) == 1

    def test_a_text_that_the_model_goes_on_with_is_left_alone(self, llm, seen):
        llm.invoke("Ada is", apply_chat_template=False, structured=StructuredOutput(json_schema=SCHEMA))
        assert seen[0].target.text == "Ada is"

    def test_any_json_says_nothing(self, either, seen):
        either.invoke("Who? Give me JSON.", response_format={"type": "json_object"})
        assert "schema" not in seen[0].target.text


@tool
def search(query: str) -> str:
    """Search the handbook."""
    return "Ada is 36."


ASK = {"messages": [("human", "Who?")]}


class TestAgents:
    @pytest.mark.parametrize("schema", [Person, DataPerson, DictPerson, SCHEMA])
    def test_a_schema_with_tools(self, schema):
        """The agent makes a tool of it, as the profile has it; the call is enforced."""
        engine = puppet(call("search", '{"query": "who"}'), call(getattr(schema, "__name__", "Person"), TEXT))
        result = agents.create_agent(ChatRapid(engine=engine), [search], response_format=schema).invoke(ASK)
        expected = {Person: Person(**ADA), DataPerson: DataPerson(**ADA)}.get(schema if callable(schema) else None, ADA)
        assert result["structured_response"] == expected
        assert all(asked["tool_choice"] == "required" for asked in engine.asked)
        assert all('"age"' in prepared.target.text for prepared in engine.seen)

    def test_tool_strategy_with_several_schemas(self):
        class Nobody(BaseModel):
            """There is nobody."""

            reason: str

        engine = puppet(call("Nobody", '{"reason": "gone"}'))
        strategy = strategies.ToolStrategy(Person | Nobody)
        result = agents.create_agent(ChatRapid(engine=engine), [search], response_format=strategy).invoke(ASK)
        assert result["structured_response"] == Nobody(reason="gone")

    def test_a_mistake_is_told_and_tried_again(self):
        class Even(BaseModel):
            number: int

            def model_post_init(self, context):
                if self.number % 2:
                    raise ValueError("odd")

        engine = puppet(call("Even", '{"number": 3}'), call("Even", '{"number": 4}'))
        result = agents.create_agent(ChatRapid(engine=engine), [], response_format=Even).invoke(ASK)
        assert result["structured_response"] == Even(number=4)
        assert "odd" in engine.seen[1].target.text

    @pytest.mark.parametrize("schema", [Person, DataPerson, DictPerson, SCHEMA])
    def test_provider_strategy(self, schema):
        engine = puppet(TEXT)
        strategy = strategies.ProviderStrategy(schema, strict=True)
        result = agents.create_agent(ChatRapid(engine=engine), response_format=strategy).invoke(ASK)
        expected = {Person: Person(**ADA), DataPerson: DataPerson(**ADA)}.get(schema if callable(schema) else None, ADA)
        assert result["structured_response"] == expected
        assert engine.seen[0].target.text.count(TOLD) == 1
        assert engine.asked[0]["sampling"].structured.json_schema["required"] == ["name", "age"]

    def test_a_model_without_tools_answers_by_the_schema(self):
        engine = puppet(TEXT, chat_template=CHATML)
        result = agents.create_agent(ChatRapid(engine=engine), response_format=Person).invoke(ASK)
        assert result["structured_response"] == Person(**ADA) and TOLD in engine.seen[0].target.text

    def test_provider_strategy_with_tools_asks_the_engine_for_both(self):
        """Call, or answer by schema: the engine is given both, and the model is told when to use which."""
        engine = puppet(call("search", '{"query": "who"}'), TEXT)
        strategy = strategies.ProviderStrategy(Person)
        result = agents.create_agent(ChatRapid(engine=engine), [search], response_format=strategy).invoke(ASK)
        assert result["structured_response"] == Person(**ADA)
        assert [m.type for m in result["messages"]] == ["human", "ai", "tool", "ai"]
        for prepared, asked in zip(engine.seen, engine.asked, strict=True):
            assert asked["tools"][0]["function"]["name"] == "search"
            assert asked["sampling"].structured.json_schema == json_schema_of(Person)
            assert prepared.target.text.count("As soon as no further call is needed, answer with one JSON object") == 1

    def test_structured_output_with_tools(self):
        chat = ChatRapid(engine=puppet(call("search", '{"query": "who"}'), TEXT))
        chain = chat.with_structured_output(Person, include_raw=True, tools=[search])
        first, second = chain.invoke("Who?"), chain.invoke("Who then?")
        assert first["raw"].tool_calls[0]["args"] == {"query": "who"}
        assert first["parsed"] is None and first["parsing_error"] is None
        assert second["parsed"] == Person(**ADA)

    def test_bound(self):
        wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
        engine = puppet(TEXT)
        answer = ChatRapid(engine=engine).bind_tools([search], response_format=wanted, strict=True).invoke("Who?")
        assert isinstance(answer, AIMessage) and json.loads(answer.content) == ADA
        assert engine.asked[0]["tools"] and engine.asked[0]["sampling"].structured.json_schema["required"]


class TestToolChoice:
    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ({"type": "function", "function": {"name": "search"}}, "search"),
            ({"type": "tool", "name": "search"}, "search"),
            ({"type": "any"}, "required"),
            ({"type": "none"}, "none"),
            (True, "required"),
            (False, None),
            ("any", "required"),
        ],
    )
    def test_forms(self, choice, expected):
        bound = ChatRapid(engine=puppet()).bind_tools([search], tool_choice=choice)
        assert bound.kwargs.get("tool_choice") == expected

    @pytest.mark.parametrize("choice", [{"type": "function"}, {}, {"type": "tool"}])
    def test_one_that_names_no_tool(self, choice):
        with pytest.raises(ConfigurationError, match="does not name a tool"):
            ChatRapid(engine=puppet()).bind_tools([search], tool_choice=choice)


def test_a_plain_llm():
    llm = RapidLLM(engine=puppet(TEXT))
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    assert json.loads(llm.bind(response_format=wanted).invoke("Who?")) == ADA
    assert llm.rapid_engine.seen[0].target.text.count(TOLD) == 1
