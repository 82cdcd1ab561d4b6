"""LlamaIndex's own pipelines, unchanged but for the LLM: the exact texts that each of the two models was given."""

import asyncio

import pytest
from llama_index.core import PromptTemplate, SummaryIndex, VectorStoreIndex, get_response_synthesizer
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.tools import QueryEngineTool, ToolMetadata

from llama_index_rapid import DocumentOrder
from tests.toys.embedder import HashEmbedder
from tests.toys.llama_index_llms import make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, HashEmbedding, nodes
from tests.toys.readers import Readers

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"

ONE_CALL = [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE, ResponseMode.COMPACT_ACCUMULATE]
CALL_PER_NODE = [ResponseMode.REFINE, ResponseMode.ACCUMULATE]


def query_engine(index, llm, mode=ResponseMode.COMPACT, **options):
    return index.as_query_engine(
        llm=llm, similarity_top_k=20, node_postprocessors=[DocumentOrder()], response_mode=mode, **options
    )


def check_compressed(request, context, question=QUESTION, segmentation="template"):
    """The target read `context` whole; the drafter the same prompt with the context replaced by parts of it."""
    assert request.target.contexts == (context,) and request.target.query == question
    assert request.target.segmentation == segmentation
    (kept,) = request.drafter.contexts
    assert request.compression.shortened and 0 < len(kept) < len(context)
    assert PARAGRAPHS[7] in kept  # what the question is about
    places = [context.index(part.strip()) for part in kept.split("\n\n") if part.strip()]
    assert places == sorted(places)
    assert request.drafter.text == request.target.text.replace(context, kept)


def best_paragraph(question):
    embedder = HashEmbedder()
    vector = embedder.embed_query(question)
    return max(PARAGRAPHS, key=lambda paragraph: float(embedder.embed_query(paragraph) @ vector))


# --- query engines --------------------------------------------------------------------------------------------------


@pytest.mark.pairs
@pytest.mark.parametrize("mode", ONE_CALL)
@pytest.mark.parametrize("kind", ["chat", "base"])
@pytest.mark.parametrize("form", ["query", "aquery"])
async def test_one_call_modes(index, llm, base_llm, given, mode, kind, form):
    engine = query_engine(index, llm if kind == "chat" else base_llm, mode)
    response = engine.query(QUESTION) if form == "query" else await engine.aquery(QUESTION)
    assert str(response)
    (request,) = given
    check_compressed(request, DOCUMENT)
    assert request.target.templated == (kind == "chat")
    assert request.compression.source == "pipeline"


@pytest.mark.parametrize("mode", CALL_PER_NODE)
async def test_modes_that_call_once_for_each_node(index, llm, given, mode):
    for form in ("query", "aquery"):
        given.clear()
        engine = query_engine(index, llm, mode)
        await engine.aquery(QUESTION) if form == "aquery" else engine.query(QUESTION)
        assert sorted(request.target.contexts for request in given) == sorted((part,) for part in PARAGRAPHS)
        assert all(request.target.query == QUESTION for request in given)
        # One node is too short to be worth shortening: both models read it whole.
        assert all(request.drafter.text == request.target.text for request in given)


async def test_simple_summarize_prints_a_list(index, llm, given):
    for form in ("query", "aquery"):
        given.clear()
        engine = query_engine(index, llm, ResponseMode.SIMPLE_SUMMARIZE)
        await engine.aquery(QUESTION) if form == "aquery" else engine.query(QUESTION)
        (request,) = given
        printed = str(["\n".join(PARAGRAPHS)])
        assert request.target.contexts == (printed,) and printed in request.target.text
        assert request.compression.source == "pipeline" and PARAGRAPHS[7] in request.drafter.text
        assert len(request.drafter.text) < len(request.target.text) / 2


@pytest.mark.parametrize("mode", [ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE, ResponseMode.SIMPLE_SUMMARIZE])
async def test_streaming(index, llm, given, mode):
    whole = str(query_engine(index, llm, mode).query(QUESTION))
    streamed = query_engine(index, llm, mode, streaming=True).query(QUESTION)
    assert "".join(streamed.response_gen) == whole
    if mode != ResponseMode.SIMPLE_SUMMARIZE:
        response = await query_engine(index, llm, mode, streaming=True).aquery(QUESTION)
        assert "".join([piece async for piece in response.async_response_gen()]) == whole
    assert len({(request.target.text, request.drafter.text) for request in given}) == 1


async def test_generation_has_no_context(index, llm, given):
    get_response_synthesizer(llm=llm, response_mode=ResponseMode.GENERATION).synthesize(QUESTION, nodes=[])
    query_engine(index, llm, ResponseMode.GENERATION).query(QUESTION)
    assert all(request.target.context_spans == () for request in given)


def test_a_summary_index_has_no_scores_so_the_context_is_embedded(llm, given):
    question = QUESTION.replace("What", "What else")  # one that nothing was scored for
    engine = SummaryIndex(nodes()).as_query_engine(llm=llm, response_mode=ResponseMode.COMPACT)
    engine.query(question)
    (request,) = given
    check_compressed(request, DOCUMENT, question)
    assert request.compression.source == "embedder"


def test_a_context_longer_than_the_window_is_refined_piece_by_piece(given):
    small = make_llm(context_window=2600, max_new_tokens=8)
    index = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[]))
    query_engine(index, small).query(QUESTION)
    assert len(given) > 1
    uncovered = DOCUMENT  # LlamaIndex cuts with an overlap
    for context in (context for request in given for context in request.target.contexts):
        at = DOCUMENT.index(context)
        uncovered = uncovered[:at] + " " * len(context) + uncovered[at + len(context) :]
    assert not uncovered.strip()
    for request in given:
        assert len(request.target_ids) + 8 <= 2600
        assert request.target.query == QUESTION and request.target.segmentation == "template"
    assert {request.compression.source for request in given} <= {"pipeline", "whole"}
    assert any(request.compression.source == "pipeline" for request in given)


def test_a_template_of_ones_own(index, llm, given):
    template = PromptTemplate(
        "Read:\n{my_text}\nNow: {ask}", template_var_mappings={"context_str": "my_text", "query_str": "ask"}
    )
    query_engine(index, llm, text_qa_template=template).query(QUESTION)
    (request,) = given
    check_compressed(request, DOCUMENT)
    assert f"Read:\n{DOCUMENT}\nNow: {QUESTION}" in request.target.text


def test_the_one_long_value_of_a_template_is_its_document_whatever_it_is_called(llm, given):
    template = PromptTemplate("Context:\n{stuff}\n\nQuestion: {ask}")
    llm.predict(template, stuff=DOCUMENT, ask=QUESTION)
    check_compressed(given[0], DOCUMENT)


def test_two_long_values_of_unknown_names_fall_back_to_the_segmenter(llm, given):
    template = PromptTemplate("Context:\n{one}\n\n{other}\n\nQuestion: {ask}")
    llm.predict(template, one=DOCUMENT, other=DOCUMENT, ask=QUESTION)
    check_compressed(given[0], f"{DOCUMENT}\n\n{DOCUMENT}", segmentation="delimiters")


def test_a_value_that_does_not_stand_in_the_prompt_does_not_count(llm, given):
    template = PromptTemplate("Only the question: {query_str}", function_mappings={"context_str": lambda **_: "x"})
    llm.predict(template, query_str=QUESTION, context_str=DOCUMENT)
    assert given[0].target.context_spans == ()


def test_metadata_in_the_prompt_belongs_to_its_node(llm, given):
    made = nodes(file_name="handbook.md")
    index = VectorStoreIndex(made, embed_model=HashEmbedding(texts=[], queries=[]))
    query_engine(index, llm).query(QUESTION)
    (request,) = given
    assert "file_name: handbook.md\n\nSection 7." in request.drafter.contexts[0]
    assert request.compression.source == "pipeline"


# --- chat engines ---------------------------------------------------------------------------------------------------


def chat_engine(kind, index, llm):
    return kind.from_defaults(
        retriever=index.as_retriever(similarity_top_k=20),
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(token_limit=3000),
        node_postprocessors=[DocumentOrder()],
        system_prompt="Be brief.",
    )


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("form", ["chat", "stream_chat", "achat", "astream_chat"])
@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine])
async def test_chat_engines_over_several_turns(index, embedding, llm, given, kind, form):
    engine = chat_engine(kind, index, llm)
    answers = []
    for question in (QUESTION, f"And {PARAGRAPHS[7][30:70]}?"):
        given.clear()
        if form == "chat":
            answers.append(str(engine.chat(question)))
        elif form == "achat":
            answers.append(str(await engine.achat(question)))
        elif form == "stream_chat":
            answers.append("".join(engine.stream_chat(question).response_gen))
        else:
            response = await engine.astream_chat(question)
            answers.append("".join([piece async for piece in response.async_response_gen()]))
        *condensed, request = given
        assert request.target.contexts == (DOCUMENT,) and request.target.query == question
        assert "Be brief." in request.target.text and request.target.text.count(DOCUMENT) == 1
        assert request.drafter.text == request.target.text.replace(DOCUMENT, request.drafter.contexts[0])
        assert request.compression.source == "pipeline"
        assert best_paragraph(embedding.queries[-1]) in request.drafter.text  # what the engine itself searched for
        assert bool(condensed) == (kind is CondensePlusContextChatEngine and question != QUESTION)
    assert QUESTION in request.target.text  # the first turn is in the second one's prompt
    assert QUESTION in request.drafter.text


# --- engines that call concurrently ---------------------------------------------------------------------------------


class TwoQuestions(BaseQuestionGenerator):
    """Asks two fixed questions of the one tool there is."""

    def __init__(self, questions):
        self.questions = questions

    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    def generate(self, tools, query):
        return [SubQuestion(sub_question=question, tool_name=tools[0].name) for question in self.questions]

    async def agenerate(self, tools, query):
        return self.generate(tools, query)


@pytest.mark.parametrize("form", ["query", "aquery"])
async def test_sub_questions_at_once_keep_their_own_contexts(index, llm, given, form):
    questions = [f"What about {PARAGRAPHS[number][11:60]}?" for number in (2, 9)]
    tool = QueryEngineTool(query_engine(index, llm), ToolMetadata(name="handbook", description="the handbook"))
    engine = SubQuestionQueryEngine.from_defaults(
        [tool],
        question_gen=TwoQuestions(questions),
        response_synthesizer=get_response_synthesizer(llm=llm),
        use_async=form == "aquery",
    )
    await engine.aquery("Both?") if form == "aquery" else await asyncio.to_thread(engine.query, "Both?")
    by_question = {request.target.query: request for request in given}
    assert set(by_question) == {*questions, "Both?"}
    for number, question in zip((2, 9), questions, strict=True):
        request = by_question[question]
        assert request.compression.source == "pipeline" and request.target.contexts == (DOCUMENT,)
        assert PARAGRAPHS[number] in request.drafter.contexts[0]
        best = max(request.retrieved, key=lambda chunk: chunk.score)
        assert best.text.strip() == PARAGRAPHS[number]


async def test_eight_queries_at_once_are_answered_as_alone(index, llm):
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=20), llm=llm, node_postprocessors=[DocumentOrder()]
    )
    questions = [f"What about {paragraph[11:60]}?" for paragraph in PARAGRAPHS[:8]]
    alone = [str(engine.query(question)) for question in questions]
    together = await asyncio.gather(*(engine.aquery(question) for question in questions))
    assert [str(answer) for answer in together] == alone


@pytest.fixture
def readers(llm, monkeypatch):
    return Readers(llm.rapid_engine, monkeypatch)


@pytest.mark.parametrize("form", ["query", "aquery"])
async def test_sub_questions_share_passes_without_a_setting(index, llm, readers, form):
    questions = [f"What about {PARAGRAPHS[number][11:60]}?" for number in (2, 5, 9)]
    tool = QueryEngineTool(query_engine(index, llm), ToolMetadata(name="handbook", description="the handbook"))
    synthesizer = get_response_synthesizer(llm=llm)
    engine = SubQuestionQueryEngine.from_defaults(
        [tool], question_gen=TwoQuestions(questions), response_synthesizer=synthesizer
    )
    readers.wait_for(2)
    await engine.aquery("All?") if form == "aquery" else await asyncio.to_thread(engine.query, "All?")
    assert max(readers.requests) > 1


@pytest.mark.parametrize("form", ["query", "aquery"])
async def test_the_calls_of_an_accumulated_answer_share_passes(index, llm, readers, form):
    # The whole answer is as without company. `query` asks at once only if it is told to, as LlamaIndex has it.
    expected = str(await asyncio.to_thread(query_engine(index, llm, ResponseMode.ACCUMULATE).query, QUESTION))
    assert max(readers.requests) == 1
    engine = query_engine(index, llm, ResponseMode.ACCUMULATE, use_async=form == "query")
    readers.wait_for(2)
    answer = await engine.aquery(QUESTION) if form == "aquery" else await asyncio.to_thread(engine.query, QUESTION)
    assert str(answer) == expected and max(readers.requests) > 1


async def test_queries_at_once_share_passes(index, llm, readers):
    engine = query_engine(index, llm)
    readers.wait_for(4)
    await asyncio.gather(*(engine.aquery(f"What about {paragraph[11:60]}?") for paragraph in PARAGRAPHS[:4]))
    assert max(readers.requests) > 1
