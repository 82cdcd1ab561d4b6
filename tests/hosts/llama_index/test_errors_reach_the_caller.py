"""What is wrong with a request reaches the user in every response mode: never "Empty Response" or half an answer."""

import pytest
from llama_index.core import PromptTemplate, VectorStoreIndex, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.postprocessor import LLMRerank, StructuredLLMRerank
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import NodeWithScore
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata
from pydantic import BaseModel, ConfigDict, field_validator

from llama_index_rapid import RapidLLM
from rapid_integrations import (
    ConfigurationError,
    ContextOverflowError,
    IncompleteOutputError,
    NotANumberError,
    OutOfMemoryError,
    PromptError,
)
from rapid_integrations.errors import HostPartError, MissingExtraError
from tests.toys.chat_templates import QWEN25
from tests.toys.embedder import HashEmbedder
from tests.toys.llama_index_llms import SMALL, make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS, HashEmbedding, nodes

QUESTION = f"What about {PARAGRAPHS[7][11:60]}?"
ASKING = [mode for mode in ResponseMode if mode not in (ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY)]
STREAMING = [
    ResponseMode.REFINE,
    ResponseMode.COMPACT,
    ResponseMode.TREE_SUMMARIZE,
    ResponseMode.SIMPLE_SUMMARIZE,
    ResponseMode.GENERATION,
]
WITH_CLASS = [
    ResponseMode.REFINE,
    ResponseMode.COMPACT,
    ResponseMode.TREE_SUMMARIZE,
    ResponseMode.ACCUMULATE,
    ResponseMode.COMPACT_ACCUMULATE,
]
FORMS = ("query", "aquery", "stream", "astream")


class Essay(BaseModel):
    """Longer than a few tokens."""

    answer: str


def over(engine, **settings):
    """Return an LLM over an engine that is there already."""
    defaults = {"max_new_tokens": 12, "compression": SMALL, "embed_model": HashEmbedder()}
    return RapidLLM(engine=engine, **{**defaults, **settings})


async def ask(llm, mode, form, **options):
    """Return a synthesizer's answer as text."""
    synthesizer = get_response_synthesizer(llm=llm, response_mode=mode, streaming="stream" in form, **options)
    found = [NodeWithScore(node=node, score=1.0) for node in nodes()[::4]]
    if form.startswith("a"):
        response = await synthesizer.asynthesize(QUESTION, nodes=found)
    else:
        response = synthesizer.synthesize(QUESTION, nodes=found)
    if form == "stream":
        return "".join(response.response_gen)
    if form == "astream":
        pieces = response.async_response_gen()
        return "".join([piece async for piece in pieces])
    return str(response)


def modes_and_forms(modes=ASKING):
    return [(m, f) for m in modes for f in FORMS if "stream" not in f or m in STREAMING]


@pytest.fixture(scope="module")
def engine():
    return make_llm().rapid_engine


@pytest.fixture(scope="module")
def base_engine():
    return make_llm(chat_template=None).rapid_engine


@pytest.fixture(scope="module")
def tool_engine():
    return make_llm(chat_template=QWEN25).rapid_engine


@pytest.fixture(params=["chat", "base", "tools"])
def each_engine(request, engine, base_engine, tool_engine):
    return {"chat": engine, "base": base_engine, "tools": tool_engine}[request.param]


ERRORS = [
    ContextOverflowError(model="m", prompt_tokens=9, new_tokens=1, context_window=9),
    ConfigurationError("no"),
    PromptError("nothing to answer"),
    NotANumberError("NaN"),
    OutOfMemoryError("full"),
    MissingExtraError(feature="It", extra="bge"),
]


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(("mode", "form"), modes_and_forms())
async def test_in_every_response_mode(engine, monkeypatch, mode, form):
    llm = over(engine)
    before = await ask(llm, mode, form)
    for error in ERRORS:
        with monkeypatch.context() as patch:
            patch.setattr(type(engine), "stream", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            with pytest.raises(type(error)) as caught:
                await ask(llm, mode, form)
        assert caught.value is error
    assert await ask(llm, mode, form) == before != "Empty Response"  # the next request works


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(("mode", "form"), modes_and_forms())
async def test_a_prompt_that_does_not_fit(engine, base_engine, mode, form):
    """Whatever LlamaIndex packed: this model's answers are longer than it was told."""
    for used in (engine, base_engine):
        llm = Longer(engine=used, compression=SMALL, embed_model=HashEmbedder(), max_new_tokens=12)
        with pytest.raises(ContextOverflowError, check=lambda error: error.new_tokens == 9000):
            await ask(llm, mode, form)


class Longer(RapidLLM):
    """Asks for more new tokens than its metadata says."""

    def _request(self, prompt, overrides, raw=False):
        return super()._request(prompt, {**overrides, "max_new_tokens": 9000}, raw)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(("mode", "form"), modes_and_forms(WITH_CLASS))
async def test_an_object_that_is_cut_off(each_engine, mode, form):
    if mode == ResponseMode.TREE_SUMMARIZE and "stream" in form:
        pytest.skip("LlamaIndex streams text there, whatever the class")
    with pytest.raises(IncompleteOutputError, match="Essay could not be made of the answer"):
        await ask(over(each_engine, max_new_tokens=5), mode, form, output_cls=Essay)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(("mode", "form"), modes_and_forms([ResponseMode.REFINE, ResponseMode.COMPACT]))
async def test_structured_answer_filtering_that_is_cut_off(each_engine, mode, form):
    with pytest.raises(IncompleteOutputError, match="max_new_tokens"):
        await ask(over(each_engine, max_new_tokens=5), mode, form, structured_answer_filtering=True)


@pytest.mark.parametrize(("mode", "form"), modes_and_forms([ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE])[:6])
async def test_a_class_without_a_schema(engine, mode, form):
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        answer: threading_lock

    if mode == ResponseMode.TREE_SUMMARIZE and "stream" in form:
        return  # LlamaIndex streams text there, whatever the class
    with pytest.raises(ConfigurationError, match="Odd cannot be an answer's class"):
        await ask(over(engine), mode, form, output_cls=Odd)


threading_lock = type("Lock", (), {})


async def test_a_class_whose_own_validator_refuses(engine):
    class Never(BaseModel):
        kind: bool

        @field_validator("kind")
        @classmethod
        def refuse(cls, value):
            raise TypeError("not on any day")

    for form in ("query", "aquery", "stream", "astream"):
        with pytest.raises(IncompleteOutputError, match="not on any day"):
            await ask(over(engine, max_new_tokens=200), ResponseMode.COMPACT, form, output_cls=Never)


class Broken(BaseRetriever):
    """A retriever that fails as parsers do."""

    def _retrieve(self, query_bundle):
        raise ValueError("the index is gone")


@pytest.mark.parametrize(("mode", "form"), modes_and_forms([ResponseMode.COMPACT, ResponseMode.TREE_SUMMARIZE]))
async def test_a_part_of_the_users_that_raises_a_value_error(engine, mode, form):
    with pytest.raises(HostPartError, match="ValueError: the index is gone") as caught:
        await ask(over(engine, retriever=Broken()), mode, form)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_a_function_of_a_template_that_raises_a_type_error(engine):
    def fails(**values):
        return values["context_str"] and 1 + values["context_str"]

    template = PromptTemplate("{context_str} {query_str}", function_mappings={"context_str": fails})
    for form in FORMS:
        with pytest.raises(HostPartError, match="TypeError"):
            await ask(over(engine), ResponseMode.COMPACT, form, text_qa_template=template)


async def test_an_error_in_the_middle_of_a_stream(engine, monkeypatch):
    llm = over(engine)
    decoded = []

    def fail(*_, **__):
        decoded.append(1)
        raise ValueError("in the middle")

    for form in ("stream", "astream"):
        with monkeypatch.context() as patch:
            patch.setattr(type(engine.vocabulary), "decode", fail)
            with pytest.raises(HostPartError, match="in the middle"):
                await ask(llm, ResponseMode.COMPACT, form)
    assert decoded


# --- beyond the synthesizers ----------------------------------------------------------------------------------------


def overflowing(engine):
    return over(engine, context_window=100, max_new_tokens=12)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # LlamaIndex raises it there, too
@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("kind", [ContextChatEngine, CondensePlusContextChatEngine, SimpleChatEngine])
async def test_chat_engines(engine, index, monkeypatch, kind, form):
    llm = over(engine)
    options = {} if kind is SimpleChatEngine else {"retriever": index.as_retriever(similarity_top_k=3)}
    chat = kind.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults(token_limit=3000), **options)
    error = ContextOverflowError(model="m", prompt_tokens=9, new_tokens=1, context_window=9)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(type(engine), "stream", fail)
    with pytest.raises(ContextOverflowError):
        response = getattr(chat, form)(QUESTION)
        response = await response if form.startswith("a") else response
        if form == "stream_chat":
            list(response.response_gen)
        elif form == "astream_chat":
            [piece async for piece in response.async_response_gen()]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the agents' own making
@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_agents(engine, monkeypatch, kind):
    llm = make_llm(chat_template=QWEN25) if kind is FunctionAgent else over(engine)
    monkeypatch.setattr(type(engine), "stream", lambda *_, **__: (_ for _ in ()).throw(ConfigurationError("no such")))
    tool = FunctionTool.from_defaults(lambda x: x, name="echo", description="echo")
    with pytest.raises(ConfigurationError, match="no such"):
        await kind(tools=[tool], llm=llm).run("hello")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_predict_and_call_of_a_model_without_tools(engine, monkeypatch):
    llm = over(engine)
    monkeypatch.setattr(type(engine), "stream", lambda *_, **__: (_ for _ in ()).throw(ConfigurationError("no such")))
    tool = FunctionTool.from_defaults(lambda x: x, name="echo", description="echo")
    with pytest.raises(ConfigurationError, match="no such"):
        await llm.apredict_and_call([tool], "hello")
    with pytest.raises(ConfigurationError, match="no such"):
        llm.predict_and_call([tool], "hello")


async def test_rerankers_routers_and_extractors(engine, index, monkeypatch):
    llm = over(engine)
    tools = [
        QueryEngineTool(index.as_query_engine(llm=llm), ToolMetadata(name=name, description=f"about {name}"))
        for name in ("one", "two")
    ]
    router = RouterQueryEngine.from_defaults(tools, llm=llm)
    monkeypatch.setattr(type(engine), "stream", lambda *_, **__: (_ for _ in ()).throw(ConfigurationError("no such")))
    found = [NodeWithScore(node=node, score=1.0) for node in nodes()]
    with pytest.raises(ConfigurationError):
        router.query(QUESTION)
    with pytest.raises(ConfigurationError):
        LLMRerank(llm=llm).postprocess_nodes(found, query_str=QUESTION)
    with pytest.raises(ConfigurationError):
        StructuredLLMRerank(llm=llm).postprocess_nodes(found, query_str=QUESTION)
    with pytest.raises(ConfigurationError):
        await SummaryExtractor(llm=llm).aextract(nodes()[:1])


async def test_a_class_beside_a_full_prompt_is_answered_with_the_room_that_is_left(engine):
    """LlamaIndex packs without the schema's text; the answer may then be shorter, but is whole or an error."""

    class Yes(BaseModel):
        """Whether it is so, in one word, and nothing else besides, as the document says it."""

        yes: bool

    llm = over(engine, context_window=1500, max_new_tokens=300)
    index = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[]))
    answer = index.as_query_engine(llm=llm, output_cls=Yes, similarity_top_k=12).query(QUESTION)
    assert answer.response.yes in (True, False)
    assert DOCUMENT
