"""Selectors, routers, rerankers, question generators and programs: JSON is enforced wherever LlamaIndex parses it."""

import re

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.base_selector import MultiSelection, SingleSelection
from llama_index.core.evaluation import GuidelineEvaluator
from llama_index.core.indices.vector_store.retrievers.auto_retriever.output_parser import VectorStoreQueryOutputParser
from llama_index.core.indices.vector_store.retrievers.auto_retriever.prompts import DEFAULT_VECTOR_STORE_QUERY_PROMPT
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.postprocessor import StructuredLLMRerank
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.selectors import (
    LLMMultiSelector,
    LLMSingleSelector,
    PydanticMultiSelector,
    PydanticSingleSelector,
)
from llama_index.core.selectors.prompts import (
    DEFAULT_MULTI_PYD_SELECT_PROMPT_TMPL,
    DEFAULT_SINGLE_PYD_SELECT_PROMPT_TMPL,
)
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field

from llama_index_rapid import RapidLLM, RapidProgram
from llama_index_rapid.asked_for_json import schema_in_text
from rapid_integrations import ConfigurationError, IncompleteOutputError, StructuredOutput
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.llama_index_llms import SMALL, make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, nodes
from tests.toys.verdict import Verdict

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"
CHOICES = [ToolMetadata(name=f"tool{number}", description=f"about {number}") for number in range(3)]


class Short(BaseModel):
    """Few tokens, whatever a random model writes."""

    index: int = Field(ge=1, le=3)
    sure: bool


@pytest.fixture(scope="module")
def engines():
    templates = {"chat": ..., "base": None, "tools": QWEN25}
    return {name: make_llm(chat_template=template).rapid_engine for name, template in templates.items()}


@pytest.fixture(params=["chat", "base", "tools"])
def each_llm(request, engines):
    return over(engines[request.param])


@pytest.fixture(params=["chat", "base"])
def toolless(request, engines):
    return over(engines[request.param])


def over(engine, **settings):
    """Return an LLM whose strings end soon: an ascii letter in ten is a quotation mark at this temperature."""
    defaults = {"max_new_tokens": 300, "compression": SMALL, "embed_model": HashEmbedder()}
    return RapidLLM(engine=engine, **{**defaults, **settings})


# --- selectors ------------------------------------------------------------------------------------------------------


def drawn(ask, llm):
    """Return the first answer that is whole of several seeds: a random model's strings may be long."""
    for seed in range(60):
        llm.temperature, llm.seed = 1.0, seed
        try:
            return ask()
        except IncompleteOutputError:
            continue
    raise AssertionError("no answer was whole")


async def test_selectors_that_ask_in_words(each_llm, given):
    single = LLMSingleSelector.from_defaults(llm=each_llm)
    result = drawn(lambda: single.select(CHOICES, QUESTION), each_llm)
    assert result.ind in range(3) and isinstance(result.reason, str)
    multi = LLMMultiSelector.from_defaults(llm=each_llm, max_outputs=2)
    result = drawn(lambda: multi.select(CHOICES, QUESTION), each_llm)
    assert 1 <= len(result.inds) <= 2 and set(result.inds) <= set(range(3))
    for request in given:
        assert "about 0" in request.target.text and request.target.context_spans == ()
        assert request.drafter.text == request.target.text


async def test_a_router_over_a_model_without_tools(toolless, index):
    tools = [QueryEngineTool(index.as_query_engine(llm=toolless), each) for each in CHOICES]
    router = RouterQueryEngine.from_defaults(tools, llm=toolless)
    response = drawn(lambda: router.query(QUESTION), toolless)
    assert response.metadata["selector_result"].ind in range(3)


async def test_selectors_for_models_with_tools_take_a_program_of_ours(toolless):
    """Without tools in the chat template LlamaIndex refuses its own program; `program=` is its way for others."""
    with pytest.raises(ValueError, match="does not support function calling"):
        PydanticSingleSelector.from_defaults(llm=toolless)
    for kind, answer, template in (
        (PydanticSingleSelector, SingleSelection, DEFAULT_SINGLE_PYD_SELECT_PROMPT_TMPL),
        (PydanticMultiSelector, MultiSelection, DEFAULT_MULTI_PYD_SELECT_PROMPT_TMPL),
    ):
        selector = kind.from_defaults(program=RapidProgram.from_defaults(answer, template, llm=toolless))
        result = drawn(lambda chosen=selector: chosen.select(CHOICES, QUESTION), toolless)
        assert all(isinstance(each.index, int) for each in result.selections)


async def test_a_pydantic_selector_of_a_model_with_tools(engines):
    llm = over(engines["tools"])
    result = drawn(lambda: PydanticSingleSelector.from_defaults(llm=llm).select(CHOICES, QUESTION), llm)
    assert isinstance(result.ind, int)


# --- programs -------------------------------------------------------------------------------------------------------


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("form", ["call", "acall", "stream_call", "astream_call"])
async def test_a_text_completion_program_is_held_to_its_class(each_llm, given, form):
    program = LLMTextCompletionProgram.from_defaults(
        output_cls=Short, prompt_template_str="Context:\n{context_str}\n\nQuestion: {query_str}", llm=each_llm
    )
    values = {"context_str": DOCUMENT, "query_str": QUESTION}
    if form == "call":
        answer = program(**values)
    elif form == "acall":
        answer = await program.acall(**values)
    elif form == "stream_call":
        answer = list(program.stream_call(**values))[-1]
    else:
        answer = [piece async for piece in await program.astream_call(**values)][-1]
    assert isinstance(answer, Short)
    (request,) = given
    # The words that ask for JSON are neither the question nor a part of the document.
    assert request.target.contexts == (DOCUMENT,) and request.target.query == QUESTION
    assert "Here's a JSON schema to follow" in request.drafter.text


@pytest.mark.parametrize("form", ["call", "acall", "stream_call", "astream_call"])
async def test_a_function_calling_program_of_a_model_with_tools(engines, form):
    llm = over(engines["tools"])
    program = FunctionCallingProgram.from_defaults(output_cls=Short, prompt_template_str="{query_str}", llm=llm)
    if form == "call":
        answer = program(query_str=QUESTION)
    elif form == "acall":
        answer = await program.acall(query_str=QUESTION)
    elif form == "stream_call":
        answer = list(program.stream_call(query_str=QUESTION))[-1]
    else:
        answer = [piece async for piece in await program.astream_call(query_str=QUESTION)][-1]
    assert isinstance(answer, Short)


async def test_a_program_mode_that_was_chosen_is_held_to_the_class_too(toolless):
    toolless.pydantic_program_mode = PydanticProgramMode.LLM
    template = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
    answer = toolless.structured_predict(Short, template, context_str=DOCUMENT, query_str=QUESTION)
    assert isinstance(answer, Short)


async def test_a_template_with_a_system_message_and_a_parser(engines, given):
    messages = [("system", "Be brief."), ("user", "{context_str}\n{query_str}")]
    template = ChatPromptTemplate.from_messages(messages, output_parser=PydanticOutputParser(Short))
    answer = over(engines["chat"]).predict(template, context_str=DOCUMENT, query_str=QUESTION)
    assert isinstance(Short.model_validate_json(answer), Short)
    (request,) = given
    assert request.target.contexts == (DOCUMENT,) and request.target.query == QUESTION


async def test_our_own_program(toolless, engines):
    program = RapidProgram.from_defaults(Short, "Is it so? {query_str}", llm=toolless)
    assert program.output_cls is Short and isinstance(program(query_str=QUESTION), Short)
    program.prompt = PromptTemplate("And now? {query_str}")
    assert isinstance(program(query_str=QUESTION, llm_kwargs={"temperature": 1.0, "seed": 3}), Short)
    with pytest.raises(ConfigurationError, match="one of prompt"):
        RapidProgram.from_defaults(Short, llm=toolless)
    with pytest.raises(ConfigurationError, match="needs a RapidLLM"):
        RapidProgram.from_defaults(Short, "x", llm=MockLLM())


# --- other parts that parse -----------------------------------------------------------------------------------------


async def test_a_question_generator(toolless):
    toolless.max_new_tokens = 900  # a list is longer than a choice
    generator = LLMQuestionGenerator.from_defaults(llm=toolless)
    questions = drawn(lambda: generator.generate(CHOICES, QueryBundle(QUESTION)), toolless)
    assert all(isinstance(question.tool_name, str) for question in questions)


async def test_a_structured_reranker(toolless):
    class Relevance(BaseModel):
        documents: list[Short]

    found = [NodeWithScore(node=node, score=0.5) for node in nodes()[:3]]
    reranker = StructuredLLMRerank(
        llm=toolless,
        document_relevance_list_cls=Relevance,
        parse_choice_select_answer_fn=lambda answer, count: (
            [each.index for each in answer.documents],
            [float(each.sure) for each in answer.documents],
        ),
    )
    kept = drawn(lambda: reranker.postprocess_nodes(found, query_str=QUESTION), toolless)
    assert all(node.node.text in PARAGRAPHS for node in kept)


async def test_an_evaluator_that_parses_a_class(toolless):
    evaluator = GuidelineEvaluator(llm=toolless)
    result = drawn(lambda: evaluator.evaluate(query="q", contexts=["c"], response="r"), toolless)
    assert isinstance(result.passing, bool)


async def test_a_query_of_an_auto_retriever_is_held_to_its_form(toolless, given):
    template = DEFAULT_VECTOR_STORE_QUERY_PROMPT.partial_format()
    template.output_parser = VectorStoreQueryOutputParser()
    with pytest.raises(IncompleteOutputError, match="VectorStoreQuerySpec could not be made"):
        toolless.max_new_tokens = 4
        toolless.predict(template, schema_str="{}", info_str="{}", query_str="q")


async def test_text_that_only_speaks_of_json_is_answered_in_text(engines):
    llm = over(engines["chat"], max_new_tokens=12)
    said = PydanticOutputParser(Short).get_format_string(escape_json=False)
    assert schema_in_text(said)[1]["title"] == "Short" and schema_in_text(said + "No, tell me a joke.") is None
    assert not llm.complete(f"{said} No, in words: {QUESTION}").text.startswith("{")
    messages = [ChatMessage(role="user", content=said), ChatMessage(role="assistant", content="No.")]
    assert llm._request([*messages, ChatMessage(role="user", content="Why?")], {}).wanted is None
    assert llm._request([*messages, ChatMessage(role="user", content=said)], {}).wanted == "Short"


async def test_a_structured_llm_in_a_query_engine(toolless, index):
    structured = toolless.as_structured_llm(Verdict)
    engine = index.as_query_engine(llm=structured, similarity_top_k=3)
    assert isinstance(engine.query(QUESTION).response, (Verdict, str))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the agent's own making
async def test_predict_and_call_of_a_model_without_tools_asks_in_words(toolless):
    said = 'Thought: I need to use a tool.\nAction: double\nAction Input: {"number": 21}\n'
    toolless.structured = StructuredOutput(regex=re.escape(said))
    tool = FunctionTool.from_defaults(lambda number: 2 * number, name="double", description="Doubles a number.")
    assert str((await toolless.apredict_and_call([tool], "Twice 21?")).response) == "42"
    assert str(toolless.predict_and_call([tool], "Twice 21?").response) == "42"
