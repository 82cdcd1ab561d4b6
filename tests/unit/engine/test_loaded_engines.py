"""The same loading settings give one engine in a process, and the last one that needs it frees it."""

import copy
import gc
import os
import shutil
import threading
import weakref
from datetime import date

import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from llama_index.core import VectorStoreIndex

import langchain_rapid
import llama_index_rapid
from rapid_integrations import ConfigurationError, EngineClosedError, RapidEngine
from rapid_integrations.engine.loaded_engines import LOADED_ENGINES
from rapid_integrations.models import loader
from tests.toys.embedder import HashEmbedder
from tests.toys.host_llms import HOSTS, ask, build
from tests.toys.llama_index_parts import HashEmbedding, nodes
from tests.toys.models import byte_tokenizer, tiny_model, words


@pytest.fixture
def loads(monkeypatch):
    """The names of the models that were loaded."""
    seen, load = [], loader.load

    def counting(name, **options):
        seen.append(name)
        return load(name, **options)

    monkeypatch.setattr(loader, "load", counting)
    return seen


def test_every_host_class_shares_one_engine(folder, loads):
    llms = [build(host, folder, temperature=number / 10) for number, host in enumerate(HOSTS)]
    assert len({id(llm.rapid_engine) for llm in llms}) == 1 and len(loads) == 1
    assert [llm.temperature for llm in llms] == [0.0, 0.1, 0.2]  # a request's settings are each one's own


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(
    "other",
    [
        {"dtype": "bfloat16"},
        {"device": "cpu"},
        {"kv_cache_bytes": 2**24},
        {"prefix_cache_bytes": 0},
        {"template_date": date(2026, 1, 2)},
        {"draft_lm": "itself"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_loaded_in_another_way_is_another_engine(make, folder, other):
    if "draft_lm" in other:
        other = {"draft_lm": str(folder)}
    one, another = make(), make(**other)
    assert one.rapid_engine is not another.rapid_engine


def test_another_name_for_the_folder_is_the_same(make, folder, monkeypatch, loads):
    monkeypatch.chdir(folder.parent)
    one, another = make(), make(target="./tiny")
    assert os.path.samefile(one.target, another.target)
    assert len(loads) == 2  # the name is in messages and statistics, so it is part of what is shared
    assert make(target="./tiny").rapid_engine is another.rapid_engine


def test_threads_that_build_one_at_once_load_once(make, loads):
    made, start = [], threading.Barrier(4)

    def run():
        start.wait()
        made.append(make())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(llm.rapid_engine) for llm in made}) == 1 and len(loads) == 1


def test_a_changed_file_is_loaded_anew(host, folder, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    before = build(host, own)
    text = ask(before)
    tiny_model("llama", 1).save_pretrained(own)  # the same size
    after = build(host, own)
    assert after.rapid_engine is not before.rapid_engine
    assert ask(after) != text and ask(before) == text


def test_from_pretrained_always_gives_a_new_one(folder):
    one, another = (RapidEngine.from_pretrained(folder, dtype="float32") for _ in range(2))
    assert one is not another


def test_model_objects_are_shared_until_their_weights_change():
    objects = {"model": tiny_model("llama", 0), "tokenizer": byte_tokenizer(), "max_new_tokens": 4}
    one = langchain_rapid.RapidLLM(**objects, embeddings=HashEmbedder())
    assert llama_index_rapid.RapidLLM(**objects, embed_model=HashEmbedder()).rapid_engine is one.rapid_engine
    before = one.invoke("hello there")
    for parameter in objects["model"].parameters():
        parameter.data.mul_(-1)
        parameter.detach().add_(0)  # PyTorch counts this one
    after = langchain_rapid.RapidLLM(**objects, embeddings=HashEmbedder())
    assert after.rapid_engine is not one.rapid_engine and after.invoke("hello there") != before


def test_a_loading_that_fails_leaves_nothing(make, tmp_path):
    with pytest.raises(Exception, match="is not a model folder: it is empty"):
        make(target=str(tmp_path))
    assert ask(make())


# --- LangChain and LlamaIndex -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS[1:])
def test_configurable_fields_load_nothing_more(host, folder, loads):
    llm = build(host, folder)
    engine = llm.rapid_engine
    asked = []
    chain = llm.configurable_fields(
        temperature=ConfigurableField(id="temperature"), max_new_tokens=ConfigurableField(id="tokens")
    )
    for tokens in (1, 4, 8):
        answer = chain.with_config(configurable={"tokens": tokens}).invoke("hello there")
        asked.append(answer if isinstance(answer, str) else answer.content)
    assert len(loads) == 1
    assert [len(text) for text in asked] == sorted({len(text) for text in asked})
    assert llm.rapid_engine is engine


@pytest.mark.parametrize("host", HOSTS[1:])
def test_configurable_fields_keep_what_was_read(host, folder):
    document = words(3, 200)
    llm = build(host, folder)
    compressor = llm._compressor
    chain = llm.configurable_fields(max_new_tokens=ConfigurableField(id="tokens"))
    prompt, parts = f"{document}\n\nwhich words?", {"rapid_context": document, "rapid_query": "which words?"}
    for tokens in (1, 2):
        chain.with_config(configurable={"tokens": tokens}).invoke(prompt, **parts)
    assert llm._compressor is compressor
    embedder = llm.embeddings
    assert len(embedder.embedded) == len(set(embedder.embedded)) > 0  # each chunk once


@pytest.mark.parametrize("host", HOSTS[1:])
def test_configurable_fields_over_a_given_engine(host, engine):
    chain = host(engine=engine, max_new_tokens=2).configurable_fields(
        temperature=ConfigurableField(id="temperature"), max_new_tokens=ConfigurableField(id="tokens")
    )
    answer = chain.with_config(configurable={"temperature": 0.5, "tokens": 1}).invoke("hello there")
    assert isinstance(answer, str) or answer.usage_metadata["output_tokens"] == 1
    with pytest.raises(ConfigurationError, match="target would have no effect"):
        host(engine=engine).configurable_fields(target=ConfigurableField(id="target")).with_config(
            configurable={"target": "other"}
        ).invoke("hello")


def test_configurable_fields_of_models(folder, tmp_path, loads):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    chain = build(langchain_rapid.RapidLLM, folder).configurable_fields(target=ConfigurableField(id="target"))
    for _ in range(2):
        assert chain.with_config(configurable={"target": str(folder)}).invoke("hello") is not None
    assert len(loads) == 1
    chain.with_config(configurable={"target": str(other)}).invoke("hello")
    assert len(loads) == 2


COPIES = [copy.copy, copy.deepcopy, lambda llm: llm.model_copy(), lambda llm: llm.model_copy(deep=True)]


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("copied", COPIES)
def test_copies_share_the_engine(make, copied, loads):
    llm = make()
    other = copied(llm)
    assert other.rapid_engine is llm.rapid_engine and len(loads) == 1
    assert ask(other) == ask(llm)
    other.close()
    assert ask(llm)
    with pytest.raises(EngineClosedError):
        ask(other)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_over_objects_are_over_the_same_objects(host, engine, copied):
    llm = host(engine=engine, max_new_tokens=2)
    assert copied(llm).rapid_engine is engine and copied(llm).engine is engine
    model, tokenizer = tiny_model("llama", 0), byte_tokenizer()
    other = copied(host(model=model, tokenizer=tokenizer, max_new_tokens=2))
    assert other.model is model and other.tokenizer is tokenizer and ask(other) is not None


def test_a_copy_with_other_models_loads_them(make, folder, tmp_path, loads):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    llm = make()
    changed = llm.model_copy(update={"target": str(other)})
    assert changed.rapid_engine.target.name == str(other) and llm.rapid_engine.target.name == str(folder)
    same = llm.model_copy(update={"max_new_tokens": 2})
    assert same.rapid_engine is llm.rapid_engine and len(loads) == 2


@pytest.mark.parametrize("name", ["model", "model_name", "model_id"])
def test_a_copy_with_another_model_under_another_librarys_name(make, folder, tmp_path, name):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    llm = make()
    changed = llm.model_copy(update={name: other, "max_tokens": 2})
    assert changed.rapid_engine.target.name == str(other) and changed.max_new_tokens == 2
    assert llm.rapid_engine.target.name == str(folder)
    profile = getattr(changed, "profile", None) or {"name": str(other), "max_output_tokens": 2}
    assert (profile["name"], profile["max_output_tokens"]) == (str(other), 2)


def test_a_copy_over_something_else_leaves_out_what_it_replaces(make, engine, folder):
    llm = make()
    over = llm.model_copy(update={"engine": engine})
    assert over.rapid_engine is engine and over.target == type(llm).model_fields["target"].default
    objects = llm.model_copy(update={"model": tiny_model("llama", 1), "tokenizer": byte_tokenizer()})
    assert objects.rapid_engine.target.name != str(folder)
    named = over.model_copy(update={"engine": None, "target": str(folder)})
    assert named.rapid_engine.target.name == str(folder)
    with pytest.raises(ConfigurationError, match="target would have no effect"):
        llm.model_copy(update={"engine": engine, "target": str(folder)})


@pytest.mark.parametrize("name", ["model", "model_name", "target"])
def test_a_configurable_model(folder, tmp_path, name):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    chain = build(langchain_rapid.ChatRapid, folder).configurable_fields(**{name: ConfigurableField(id="model")})
    names = [
        chain.invoke("hello", config={"configurable": each}).response_metadata["model_name"]
        for each in ({}, {"model": str(other)}, {})
    ]
    assert names == [str(folder), str(other), str(folder)]


def test_what_was_loaded_cannot_be_changed_on_the_object(make):
    llm = make()
    with pytest.raises(ConfigurationError, match="model_copy"):
        llm.target = "another"
    llm.temperature = 0.5
    assert llm.temperature == 0.5


def test_copies_of_what_holds_an_llm(folder, loads):
    llm = build(llama_index_rapid.RapidLLM, folder)
    index = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[]))
    query_engine = index.as_query_engine(llm=llm)
    chain = ChatPromptTemplate.from_template("{question}") | build(langchain_rapid.ChatRapid, folder)
    for each in (query_engine, chain):
        copied = copy.deepcopy(each)
        assert len(loads) == 1
        if copied is not query_engine and hasattr(copied, "query"):
            assert copied._response_synthesizer._llm.rapid_engine is llm.rapid_engine
        else:
            assert copied.last.rapid_engine is llm.rapid_engine
            assert copied.invoke({"question": "hello"}).content is not None


# --- freeing ----------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_last_one_that_closes_frees_the_models(make):
    llms = [make() for _ in range(3)]
    engine, model = llms[0].rapid_engine, weakref.ref(llms[0].rapid_engine.target.model)
    for llm in llms[:2]:
        llm.close()
        assert not engine.closed and ask(llms[2]) is not None
    llms[2].close()
    assert engine.closed
    gc.collect()
    assert model() is None  # although the closed LLMs and the engine are still here


@pytest.mark.long
def test_the_last_one_that_is_collected_frees_the_models(make):
    llm = make()
    other = copy.deepcopy(llm)
    engine, model = weakref.ref(llm.rapid_engine), weakref.ref(llm.rapid_engine.target.model)
    del llm
    gc.collect()
    assert ask(other) is not None and engine() is not None
    del other
    gc.collect()
    assert engine() is None and model() is None


def test_one_that_was_closed_behind_its_back_is_not_handed_out(make):
    llm = make()
    llm.rapid_engine.close()
    with pytest.raises(EngineClosedError):
        ask(llm)
    assert ask(make()) is not None


def test_a_given_engine_stays_open(host, engine):
    with host(engine=engine, max_new_tokens=2) as llm:
        assert ask(llm) is not None
    assert not engine.closed
    with pytest.raises(EngineClosedError):
        ask(llm)


def test_a_collected_engine_gives_the_model_its_attention_back():
    model = tiny_model("llama", 0)
    own = model.config._attn_implementation
    engine = RapidEngine.from_models(model, byte_tokenizer())
    assert model.config._attn_implementation != own
    del engine
    gc.collect()
    assert model.config._attn_implementation == own


def test_a_stream_outlives_its_collected_llm(folder):
    stream = build(llama_index_rapid.RapidLLM, folder).stream_complete("hello there")
    gc.collect()
    assert len(list(stream)) > 0
    assert LOADED_ENGINES is not None
