"""Arguments of the chat template through the classes of both frameworks: for all calls, for one, bound and assigned."""

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.prompts import PromptTemplate as LangChainTemplate
from llama_index.core import PromptTemplate

import langchain_rapid
import llama_index_rapid
from rapid_integrations import ConfigurationError, RapidEngine
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.host_llms import HOSTS, ask
from tests.toys.thinking import DOCUMENT, EMPTY, OFF, both_texts, switched_engine, without_thoughts

ON = {"enable_thinking": True}
WRONG = {"enable_thinkin": False}
unknown = coded("configuration.unknown_name")


@pytest.fixture(scope="module")
def engine():
    with switched_engine() as made:
        yield made


@pytest.fixture(params=HOSTS, ids=lambda host: f"{host.__module__.split('_')[0]}-{host.__name__}")
def make(request, engine):
    return lambda **settings: request.param(**{"engine": engine, "max_new_tokens": 3, **settings})


@pytest.fixture
def seen(monkeypatch):
    """Both texts of every request, in order."""
    found = []
    stream = RapidEngine.stream

    def recording(self, *given, **options):
        made = stream(self, *given, **options)
        found.append(both_texts(made.prepared))
        return made

    monkeypatch.setattr(RapidEngine, "stream", recording)
    return found


def test_for_all_calls_and_for_one(make, seen):
    plain, silent = make(), make(chat_template_kwargs=OFF)
    ask(plain)
    off = without_thoughts(seen[0])
    ask(plain, chat_template_kwargs=OFF)
    ask(silent)
    ask(silent, chat_template_kwargs=ON)
    ask(plain, extra_body={"chat_template_kwargs": OFF})  # as callers of vLLM send them
    assert seen == [seen[0], off, off, seen[0], off] and seen[0][0] != off[0]
    with pytest.raises(ConfigurationError, match="It reads enable_thinking", check=unknown):
        ask(plain, chat_template_kwargs=WRONG)


def test_a_changed_setting_holds_for_the_next_call(make, seen):
    llm = make()
    ask(llm)
    llm.chat_template_kwargs = OFF
    ask(llm)
    ask(llm.model_copy(update={"chat_template_kwargs": ON}))
    assert seen == [seen[0], without_thoughts(seen[0]), seen[0]]
    with pytest.raises(ConfigurationError, match="It reads enable_thinking", check=unknown):
        llm.chat_template_kwargs = WRONG
    with pytest.raises(ConfigurationError, match="documents", check=coded("configuration.reserved_name")):
        llm.chat_template_kwargs = {"documents": []}
    assert llm.chat_template_kwargs == OFF


def test_wrong_ones_are_told_when_it_is_built(make):
    with pytest.raises(ConfigurationError, match="Did you mean 'enable_thinking'", check=unknown):
        make(chat_template_kwargs=WRONG)
    with pytest.raises(ConfigurationError, match="mapping", check=coded("configuration.wrong_value")):
        make(chat_template_kwargs="enable_thinking")
    for name in ("enable_thinking", "reasoning_effort"):
        with pytest.raises(ConfigurationError, match="chat_template_kwargs="):
            make(**{name: False})


def test_an_engines_own_are_a_new_classs_defaults(make, seen):
    with switched_engine(chat_template_kwargs=OFF) as silent:
        llm = make(engine=silent)
        assert llm.chat_template_kwargs == OFF
        ask(llm)
        assert seen[-1][0].endswith(EMPTY)
        ask(llm, chat_template_kwargs=ON)
        assert not seen[-1][0].endswith(EMPTY)


def test_caches_of_answers_tell_them_apart(make):
    def identity(llm):
        return llm.to_dict() if isinstance(llm, llama_index_rapid.RapidLLM) else dict(llm._identifying_params)

    assert identity(make()) == identity(make()) != identity(make(chat_template_kwargs=OFF))


def test_prompts_that_go_around_the_template_go_on_without_them(engine, seen):
    llm = langchain_rapid.RapidLLM(engine=engine, chat_template_kwargs=OFF, apply_chat_template=False, max_new_tokens=2)
    llm.invoke("hello")
    own = llama_index_rapid.RapidLLM(
        engine=engine, chat_template_kwargs=OFF, completion_to_prompt=lambda text: f"> {text}", max_new_tokens=2
    )
    own.complete("hello")
    assert [target for target, _ in seen] == ["hello", "> hello"]
    for ask_it in (llm.invoke, own.complete):
        with pytest.raises(ConfigurationError, match="only the chat template reads them"):
            ask_it("hello", chat_template_kwargs=OFF)


# --- LangChain --------------------------------------------------------------------------------------------------------


def test_bound_to_a_chain_and_read_ahead(engine, seen):
    prompt = ChatPromptTemplate.from_messages([("user", "{context}\n\nQuestion: {question}\nAnswer:")])
    chat = langchain_rapid.ChatRapid(engine=engine, max_tokens=2).bind(chat_template_kwargs=OFF)
    done = langchain_rapid.read_ahead(chat, prompt, {"context": DOCUMENT})
    answer = (prompt | chat).invoke({"context": DOCUMENT, "question": "which?"})
    assert answer.response_metadata["rapid"]["cached_prompt_tokens"] >= done.tokens > len(DOCUMENT)
    assert all(text.endswith(EMPTY) for text in seen[-1]) and len(seen[-1][1]) < len(seen[-1][0])
    text = LangChainTemplate.from_template("{context}\n\nQuestion: {question}\nAnswer:")
    (text | langchain_rapid.RapidLLM(engine=engine, max_tokens=2, chat_template_kwargs=OFF)).invoke(
        {"context": DOCUMENT, "question": "which?"}
    )
    assert seen[-1] == seen[-2]


def test_messages_are_counted_with_them(engine):
    chats = [langchain_rapid.ChatRapid(engine=engine, chat_template_kwargs=given) for given in ({}, OFF)]
    counts = [chat.get_num_tokens_from_messages(_messages()) for chat in chats]
    assert counts[1] == counts[0] + len(EMPTY)


def test_langchains_cache_tells_calls_apart(engine, seen):
    from langchain_core.caches import InMemoryCache

    for kind in (langchain_rapid.RapidLLM, langchain_rapid.ChatRapid):
        llm = kind(engine=engine, max_tokens=2, cache=InMemoryCache())
        before = len(seen)
        for _ in range(2):
            ask(llm)
            ask(llm, chat_template_kwargs=OFF)
            ask(llm.bind(chat_template_kwargs=ON))
        assert len(seen) == before + 3


def _messages():
    from langchain_core.messages import HumanMessage

    return [HumanMessage("hello")]


# --- LlamaIndex -------------------------------------------------------------------------------------------------------


def test_a_query_of_a_pipeline_and_its_reading_ahead(engine, seen):
    llm = llama_index_rapid.RapidLLM(
        engine=engine, chat_template_kwargs=OFF, max_new_tokens=2, embed_model=HashEmbedder()
    )
    template = PromptTemplate("{context_str}\n\nQuestion: {query_str}\nAnswer:")
    done = llm.read_ahead(template, "query_str", context_str=DOCUMENT)
    llm.predict(template, context_str=DOCUMENT, query_str="which?")
    assert all(text.endswith(EMPTY) for text in seen[-1]) and len(seen[-1][1]) < len(seen[-1][0])
    assert both_texts(llm.explain(template, context_str=DOCUMENT, query_str="which?")) == seen[-1]
    assert done.tokens > len(DOCUMENT)
    assert llm.to_dict()["chat_template_kwargs"] == OFF


def test_the_window_is_smaller_by_what_the_template_writes_more(engine):
    llms = [llama_index_rapid.RapidLLM(engine=engine, chat_template_kwargs=given) for given in ({}, OFF)]
    windows = [llm.metadata.context_window for llm in llms]
    assert windows[1] == windows[0] - len(EMPTY)
