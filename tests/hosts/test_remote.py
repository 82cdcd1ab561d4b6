"""The classes of both hosts over a server (`base_url`): the same answers as over the engine that it serves."""

import asyncio
import pickle

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from langchain_core.prompts import ChatPromptTemplate
from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from pydantic import BaseModel

import langchain_rapid
import llama_index_rapid
from rapid_integrations import ConfigurationError, ContextOverflowError, EngineClosedError, RemoteError
from rapid_integrations.engine.loaded_engines import LOADED_ENGINES
from tests.toys.langchain_parts import DOCUMENT, WANTED, Best, Hashed, Only, splitter
from tests.toys.llama_index_parts import HashEmbedding
from tests.toys.remote_engines import KEY, SMALL, local_engine, require_key, serving
from tests.toys.tool_callers import TOOLS
from tests.toys.tool_callers import engine as tool_caller

LLAMA, PLAIN, CHAT = llama_index_rapid.RapidLLM, langchain_rapid.RapidLLM, langchain_rapid.ChatRapid
HOSTS = [LLAMA, PLAIN, CHAT]
SETTINGS = {"max_new_tokens": 8, "compression": SMALL}


@pytest.fixture(scope="module")
def here():
    with local_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def url(here):
    with serving(here) as address:
        yield address


@pytest.fixture(params=HOSTS, ids=lambda host: f"{host.__module__.split('_')[0]}-{host.__name__}")
def pair(request, here, url):
    """The class over the engine, and over the server."""
    over_engine = request.param(engine=here, **SETTINGS)
    with request.param(base_url=url, **SETTINGS) as over_server:
        yield over_engine, over_server


def ask(llm, prompt="hello there", **settings):
    if isinstance(llm, LLAMA):
        return llm.complete(prompt, **settings).text
    answer = llm.invoke(prompt, **settings)
    return answer if isinstance(answer, str) else answer.content


def test_whole_answers_and_pieces(pair):
    here, there = pair
    text = f"Context: {DOCUMENT}\n\nQuestion: what is there?"
    assert ask(there, text) == ask(here, text)
    assert ask(there, text, temperature=0.7, seed=3) == ask(here, text, temperature=0.7, seed=3)
    if isinstance(here, LLAMA):
        assert [each.text for each in there.stream_complete(text)][-1] == ask(here, text)
        assert there.metadata == here.metadata
    else:
        pieces = [each if isinstance(each, str) else each.content for each in there.stream(text)]
        assert "".join(pieces) == ask(here, text)
        assert there.get_token_ids("hello") == here.get_token_ids("hello")


def test_without_blocking_the_event_loop(pair):
    here, there = pair

    async def both(llm):
        if isinstance(llm, LLAMA):
            whole = (await llm.acomplete("hello")).text
            pieces = [each.delta async for each in await llm.astream_complete("hello")]
            return whole, "".join(pieces)
        whole = await llm.ainvoke("hello")
        pieces = [each async for each in llm.astream("hello")]
        texts = [each if isinstance(each, str) else each.content for each in (whole, *pieces)]
        return texts[0], "".join(texts[1:])

    assert asyncio.run(both(there)) == asyncio.run(both(here))


@pytest.mark.parametrize("host", [PLAIN, CHAT], ids=["RapidLLM", "ChatRapid"])
def test_batches(here, url, host):
    prompts = [f"prompt {number}" for number in range(5)]

    def texts(answers):
        return [each if isinstance(each, str) else each.content for each in answers]

    with host(base_url=url, **SETTINGS) as llm:
        expected = texts(host(engine=here, **SETTINGS).batch(prompts))
        assert texts(llm.batch(prompts)) == expected
        assert texts(asyncio.run(llm.abatch(prompts))) == expected


def test_statistics_and_sources(here, url):
    prompt = ChatPromptTemplate.from_messages([("human", "Use {context} to answer: {question}")])
    found = []
    for llm in (CHAT(engine=here, **SETTINGS), CHAT(base_url=url, **SETTINGS)):
        answer = (prompt | llm).invoke({"context": DOCUMENT, "question": "what is there?"})
        found.append(answer)
    mine, theirs = found
    assert theirs.content == mine.content
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert theirs.usage_metadata[name] == mine.usage_metadata[name]
    known, said = mine.response_metadata["rapid"], theirs.response_metadata["rapid"]
    assert said["law"] == known["law"] and said["retrieved"] == known["retrieved"] != []
    assert said["segmentation"] == known["segmentation"]


def test_context_and_question_of_a_llama_index_template(here, url):
    template = PromptTemplate("Read {context_str}\nand answer {query_str}")
    raws = []
    for llm in (LLAMA(engine=here, **SETTINGS), LLAMA(base_url=url, **SETTINGS)):
        shown = llm.explain(template, context_str=DOCUMENT, query_str="what is there?")
        assert shown.target.contexts == (DOCUMENT,) and shown.target.query == "what is there?"
        raws.append((shown, llm.predict(template, context_str=DOCUMENT, query_str="what is there?")))
    assert raws[0] == raws[1]


def test_tools_and_structured_output():
    engine = tool_caller("qwen2.5")
    with serving(engine) as address, CHAT(base_url=address, max_new_tokens=140, temperature=1.0, seed=2) as chat:
        bound = chat.bind_tools(TOOLS, tool_choice="any")
        mine = CHAT(engine=engine, max_new_tokens=140, temperature=1.0, seed=2).bind_tools(TOOLS, tool_choice="any")
        theirs, ours = bound.invoke("what?"), mine.invoke("what?")
        assert [(c["name"], c["args"]) for c in theirs.tool_calls] == [(c["name"], c["args"]) for c in ours.tool_calls]
    with serving(engine) as address, LLAMA(base_url=address, max_new_tokens=80) as llm:

        class Answer(BaseModel):
            old: bool

        assert isinstance(llm.structured_predict(Answer, PromptTemplate("what?")), Answer)
        assert llm.metadata.is_function_calling_model
        assert llm.chat([ChatMessage(content="hello")]).message.content is not None


def test_parts_of_the_host_search_here(here, url):
    prompt = ChatPromptTemplate.from_messages([("human", "Use {context} to answer: {question}")])
    given = {"context": DOCUMENT, "question": "which?"}
    for parts in (
        {"retriever": Best()},
        {"embeddings": Hashed()},
        {"embeddings": Hashed(), "text_splitter": splitter(), "document_compressor": Only()},
    ):
        found = []
        for place in ({"engine": here}, {"base_url": url}):
            llm = CHAT(**place, **parts, **SETTINGS, return_retrieved=True)
            found.append((prompt | llm).invoke(given))
        mine, theirs = (each.response_metadata["rapid"]["retrieved"] for each in found)
        assert theirs == mine and any(each["text"] in DOCUMENT for each in theirs)
    assert any(WANTED in each["text"] for each in theirs)
    embedding = HashEmbedding()
    template = PromptTemplate("Read {context_str}\nand answer {query_str}")
    with LLAMA(base_url=url, embed_model=embedding, **SETTINGS) as llm:
        shown = llm.explain(template, context_str=DOCUMENT, query_str="what is there?")
    assert embedding.queries == ["what is there?"] and shown.compression.shortened


def test_errors_of_the_server_reach_the_caller(pair):
    _, there = pair
    with pytest.raises(ContextOverflowError):
        ask(there, max_new_tokens=100_000)


def test_one_connection_for_the_same_server(url):
    LOADED_ENGINES.forget()
    with (
        LLAMA(base_url=url) as one,
        CHAT(base_url=url, temperature=0.5) as two,
        CHAT(base_url=url, api_key="k") as three,
    ):
        assert one.rapid_engine is two.rapid_engine is not three.rapid_engine
    with pytest.raises(EngineClosedError):
        ask(one)


def test_a_pickled_one_connects_where_it_arrives(pair):
    _, there = pair
    arrived = pickle.loads(pickle.dumps(there))
    assert ask(arrived) == ask(there)
    arrived.close()


def test_the_key(here):
    with serving(here, middleware=[require_key()]) as address:
        with pytest.raises(RemoteError, match="refuses the API key"):
            CHAT(base_url=address)
        for host in HOSTS:
            with host(base_url=address, api_key=KEY, max_new_tokens=3) as llm:
                assert ask(llm) == ask(host(engine=here, max_new_tokens=3))
                assert KEY not in repr(llm) and KEY not in str(llm.model_dump())


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: f"{host.__module__.split('_')[0]}-{host.__name__}")
def test_what_excludes_a_server(host, here, url):
    for wrong in ({"target": "smollm2-135m-instruct-x"}, {"engine": here}, {"dtype": "float32"}, {"kv_cache_bytes": 9}):
        with pytest.raises(ConfigurationError, match="would have no effect"):
            host(base_url=url, **wrong)


def test_a_copy_over_a_server(here, url):
    llm = CHAT(engine=here, **SETTINGS)
    copy = llm.model_copy(update={"base_url": url})
    assert copy.rapid_engine is not here and ask(copy) == ask(llm)
    copy.close()
    with pytest.raises(ConfigurationError, match="was loaded with"):
        llm.base_url = url
