"""Objects of a class instead of text, and tools: both held to their schema while decoding, by a random model."""

import json
from typing import Literal

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from llama_index_rapid import DocumentOrder, RapidLLM
from rapid_integrations import ConfigurationError, IncompleteOutputError, StructuredOutput
from tests.toys.chat_templates import QWEN25
from tests.toys.llama_index_llms import make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS
from tests.toys.order_class import ORDER, Order
from tests.toys.puppet import puppet
from tests.toys.verdict import Verdict

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"
TEMPLATE = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
ARGUMENTS = {"context_str": DOCUMENT, "query_str": QUESTION}


class Essay(BaseModel):
    """Too long for a few tokens."""

    kind: Literal["an answer that is longer than a handful of bytes"]


@pytest.fixture(scope="module")
def llm():
    return make_llm(max_new_tokens=300)


# --- structured -----------------------------------------------------------------------------------------------------


async def test_the_structured_forms_agree(llm, given):
    expected = llm.structured_predict(Verdict, TEMPLATE, **ARGUMENTS)
    assert isinstance(expected, Verdict)
    assert await llm.astructured_predict(Verdict, TEMPLATE, **ARGUMENTS) == expected
    assert list(llm.stream_structured_predict(Verdict, TEMPLATE, **ARGUMENTS))[-1] == expected
    pieces = await llm.astream_structured_predict(Verdict, TEMPLATE, **ARGUMENTS)
    assert [piece async for piece in pieces][-1] == expected
    assert len({(request.target.text, request.drafter.text) for request in given}) == 1
    request = given[0]
    assert request.target.contexts == (DOCUMENT,) and request.target.query == QUESTION
    assert json.dumps(Verdict.model_json_schema()) in request.drafter.text


def test_a_strict_class_with_every_kind_of_field():
    expected = Order.model_validate_json(ORDER)
    llm = RapidLLM(engine=puppet(ORDER, ORDER), max_new_tokens=800)
    assert llm.structured_predict(Order, PromptTemplate("What?")) == expected
    assert llm.as_structured_llm(Order).complete("What?").raw == expected


def test_a_base_model_answers_in_form_too(given):
    base = make_llm(chat_template=None, max_new_tokens=300)
    assert isinstance(base.structured_predict(Verdict, TEMPLATE, **ARGUMENTS), Verdict)
    assert given[0].target.contexts == (DOCUMENT,) and not given[0].target.templated


async def test_a_structured_llm_and_an_output_class_of_a_query_engine(llm, index, given):
    structured = llm.as_structured_llm(Verdict)
    message = ChatMessage(role="user", content=f"Context:\n{DOCUMENT}\n\nQuestion: {QUESTION}")
    assert isinstance(structured.chat([message]).raw, Verdict)
    assert isinstance((await structured.achat([message])).raw, Verdict)
    assert isinstance(structured.complete(message.content).raw, Verdict)
    for request in given:
        assert request.target.contexts == (DOCUMENT,) and request.target.query == QUESTION
        assert request.target.segmentation == "delimiters"
    for mode in (ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE, ResponseMode.REFINE):
        engine = index.as_query_engine(
            llm=llm,
            output_cls=Verdict,
            similarity_top_k=3,
            response_mode=mode,
            node_postprocessors=[DocumentOrder()],
        )
        for answer in (engine.query(QUESTION), await engine.aquery(QUESTION)):
            Verdict.model_validate_json(str(answer))


def test_settings_reach_a_structured_call(llm):
    answers = {
        llm.structured_predict(Verdict, TEMPLATE, llm_kwargs={"temperature": 2.0, "seed": seed}, **ARGUMENTS).kind
        for seed in range(12)
    }
    assert len(answers) > 1


def test_an_answer_that_was_cut_off_says_so(llm):
    with pytest.raises(IncompleteOutputError, match="raise max_new_tokens"):
        llm.structured_predict(Essay, TEMPLATE, llm_kwargs={"max_new_tokens": 5}, **ARGUMENTS)


# --- tools ----------------------------------------------------------------------------------------------------------


def add(left: int, right: bool) -> str:
    """Add two things."""
    return f"{left} and {right}"


TOOL = FunctionTool.from_defaults(add)


@pytest.fixture(scope="module")
def tool_llm():
    return make_llm(chat_template=QWEN25, max_new_tokens=200)


async def test_a_required_tool_is_called_with_arguments_of_its_schema(tool_llm, given):
    assert tool_llm.metadata.is_function_calling_model
    options = {"user_msg": "Add them.", "tool_required": True, "temperature": 1.0, "seed": 3}
    responses = [
        tool_llm.chat_with_tools([TOOL], **options),
        await tool_llm.achat_with_tools([TOOL], **options),
        list(tool_llm.stream_chat_with_tools([TOOL], **options))[-1],
        [piece async for piece in await tool_llm.astream_chat_with_tools([TOOL], **options)][-1],
    ]
    for response in responses:
        (call,) = tool_llm.get_tool_calls_from_response(response)
        assert call.tool_name == "add" and isinstance(call.tool_kwargs["right"], bool) and call.tool_id
        assert response.raw["finish_reason"] == "tool_calls"
        assert "<tool_call>" not in (response.message.content or "")
    assert '"description": "add(left: int, right: bool) -> str' in given[0].target.text


def test_predict_and_call_runs_the_tool(tool_llm):
    answer = tool_llm.predict_and_call([TOOL], "Add them.", tool_required=True, temperature=1.0, seed=3)
    assert " and " in str(answer)


def test_a_calls_result_goes_back_through_the_models_own_template(tool_llm, given):
    call = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"left": 1, "right": True})
    tool_llm.chat(
        [
            ChatMessage(role="user", content="Add them."),
            ChatMessage(role="assistant", blocks=[call]),
            ChatMessage(role="tool", content="1 and True", additional_kwargs={"tool_call_id": "1", "name": "add"}),
        ],
        max_new_tokens=4,
    )
    text = given[0].target.text
    assert '<tool_call>\n{"name": "add", "arguments": {"left": 1, "right": true}}\n</tool_call>' in text
    assert "<tool_response>\n1 and True\n</tool_response>" in text


def test_a_long_tool_result_is_the_context(tool_llm, given):
    call = ToolCallBlock(tool_call_id="1", tool_name="search", tool_kwargs={"left": 1, "right": True})
    tool_llm.chat(
        [
            ChatMessage(role="user", content=QUESTION),
            ChatMessage(role="assistant", blocks=[call]),
            ChatMessage(role="tool", content=DOCUMENT, additional_kwargs={"tool_call_id": "1"}),
        ],
        max_new_tokens=4,
    )
    (request,) = given
    assert request.target.contexts == (DOCUMENT,) and request.target.query == QUESTION
    assert request.target.segmentation == "tool messages" and len(request.drafter.text) < len(request.target.text)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the agent's own making
async def test_a_workflow_agent_calls_its_tool(tool_llm, given):
    class Required(type(tool_llm)):
        """A random model would never call a tool of its own accord: its first answer has to."""

        async def astream_chat_with_tools(self, tools, chat_history=None, **kwargs):
            first = not any(message.role == "tool" for message in chat_history or [])
            return await super().astream_chat_with_tools(
                tools, chat_history=chat_history, tool_required=first, temperature=1.0, seed=3, **kwargs
            )

    llm = Required(engine=tool_llm.rapid_engine, max_new_tokens=200)
    response = await FunctionAgent(tools=[TOOL], llm=llm).run("Add them.")
    assert [call.tool_name for call in response.tool_calls][:1] == ["add"]
    assert "<tool_response>" in given[-1].target.text


def test_no_tool_call_and_no_tools_in_the_template_are_clear_errors(tool_llm, llm):
    answer = ChatResponse(message=ChatMessage(role="assistant", content="no"), raw={"finish_reason": "stop"})
    with pytest.raises(ValueError, match="tool_required=True"):
        tool_llm.get_tool_calls_from_response(answer)
    assert tool_llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []
    with pytest.raises(IncompleteOutputError, match="raise max_new_tokens"):
        tool_llm.get_tool_calls_from_response(tool_llm.chat([ChatMessage(role="user", content="hi")], max_new_tokens=2))
    with pytest.raises(ConfigurationError, match="tools"):
        llm.chat_with_tools([TOOL], user_msg="Add them.")


def test_tools_and_a_schema_in_one_request():
    """`chat_with_tools(..., structured=...)`: the answer is a call, or follows the schema."""

    def look_up(urgent: bool) -> str:
        """Look something up."""
        return str(urgent)

    running = make_llm(chat_template=QWEN25, max_new_tokens=300)
    schema = {"type": "object", "properties": {"certain": {"type": "boolean"}}, "required": ["certain"],
              "additionalProperties": False}  # fmt: skip
    structured, kinds = StructuredOutput(json_schema=schema), set()
    for seed in range(5):
        response = running.chat_with_tools(
            [FunctionTool.from_defaults(look_up)],
            user_msg="What now?",
            structured=structured,
            seed=seed,
            temperature=1.5,
        )
        calls = running.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        kinds.add(bool(calls))
        if calls:
            assert calls[0].tool_name == "look_up" and set(calls[0].tool_kwargs) == {"urgent"}
        else:
            assert set(json.loads(response.message.content)) == {"certain"}
    assert kinds
