"""A pickled LLM is its settings: small, quick, and the same model where it arrives; or it is refused at once."""

import concurrent.futures
import functools
import io
import multiprocessing
import os
import pickle
import threading

import cloudpickle
import dill
import joblib
import pytest
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document

import langchain_rapid
import llama_index_rapid
from rapid_integrations import ConfigurationError, NotPicklableError, RapidError, packaged
from rapid_integrations.compression import SentenceTransformerEmbedder
from tests.toys.host_llms import HOSTS, ask, build
from tests.toys.models import byte_tokenizer, tiny_model
from tests.toys.tagged import Tagged


def asked(llm):
    """Run in another process."""
    return os.getpid(), ask(llm), llm.rapid_engine.target.name, llm.max_new_tokens


@pytest.mark.parametrize("pickler", [pickle, cloudpickle, dill], ids=lambda module: module.__name__)
def test_a_pickle_is_small(make, pickler):
    llm = make()
    data = pickler.dumps(llm)
    assert len(data) < 100_000
    again = pickler.loads(data)
    assert again.rapid_engine is llm.rapid_engine and ask(again) == ask(llm)


def test_the_settings_arrive(make):
    llm = make(temperature=0.5, seed=3, stop=("zz",), draft_length=2)
    again = pickle.loads(pickle.dumps(llm))
    assert type(again) is type(llm)
    for name in ("temperature", "seed", "stop", "draft_length", "compression", "target", "dtype", "max_new_tokens"):
        assert getattr(again, name) == getattr(llm, name)
    assert again.model_fields_set == llm.model_fields_set
    assert ask(again) == ask(llm)


def test_nothing_is_loaded_before_it_is_used(make, monkeypatch):
    data = pickle.dumps(make())
    again = pickle.loads(data)
    assert again._hold.engine is None
    assert again.rapid_engine is again._hold.engine is not None


def test_settings_are_checked_where_it_arrives_before_it_is_used(make, folder):
    again = pickle.loads(pickle.dumps(make()))
    for name, value, said in (
        ("temperature", -3, "greater than or equal to 0"),
        ("temprature", 1, "'temperature'"),
        ("target", "another", "model_copy"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            setattr(again, name, value)
    again.max_tokens = 2
    assert again._hold.engine is None and again.max_new_tokens == 2 and again.temperature == 0
    assert again.rapid_engine.target.name == str(folder)
    if isinstance(again, langchain_rapid.ChatRapid):
        assert again.profile["max_output_tokens"] == 2
        assert again.invoke("hello there").usage_metadata["output_tokens"] == 2


def test_a_pickle_of_a_closed_one_is_closed(make):
    llm = make()
    llm.close()
    with pytest.raises(RapidError, match="has been closed"):
        ask(pickle.loads(pickle.dumps(llm)))


@pytest.mark.parametrize("where", ["index", "chain", "list"])
def test_inside_of_something_else(folder, where):
    llama, chat = build(llama_index_rapid.RapidLLM, folder), build(langchain_rapid.ChatRapid, folder)
    if where == "index":
        extractor = pickle.loads(pickle.dumps(SummaryExtractor(llm=llama, num_workers=1)))
        assert ask(extractor.llm) == ask(llama)
    elif where == "chain":
        chain = pickle.loads(pickle.dumps(ChatPromptTemplate.from_template("{question}") | chat))
        assert chain.invoke({"question": "hello there"}).content == ask(chat)
    else:
        one, two = pickle.loads(pickle.dumps([llama, llama]))
        assert one is two


def test_langchains_own_parts_arrive(folder):
    llm = build(langchain_rapid.ChatRapid, folder, tags=["a"], metadata={"b": 1}, name="mine")
    again = pickle.loads(pickle.dumps(llm))
    assert (again.tags, again.metadata["b"], again.name, again.profile) == (["a"], 1, "mine", llm.profile)


# --- other processes --------------------------------------------------------------------------------------------------


@pytest.mark.slow  # spawning is two starts of the interpreter with everything imported
@pytest.mark.process
def test_the_same_answer_in_a_spawned_process(folder):
    llms = [build(host, folder) for host in HOSTS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(asked, llms)
    assert [(text, name, tokens) for _, text, name, tokens in found] == [(ask(llm), str(folder), 4) for llm in llms]
    assert os.getpid() not in {process for process, *_ in found}


@pytest.mark.process
@pytest.mark.slow
def test_joblib(folder):
    llm = build(langchain_rapid.RapidLLM, folder)
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(asked)(llm) for _ in range(2))
    assert {text for _, text, _, _ in found} == {ask(llm)} and os.getpid() not in {process for process, *_ in found}


@pytest.mark.process
def test_a_forked_process_loads_its_own(folder):
    """One thread computes here (see `tests.toys.models`), so a forked child can."""
    llm = build(llama_index_rapid.RapidLLM, folder)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        process, text, _, _ = pool.submit(asked, llm).result(timeout=60)
    assert process != os.getpid() and text == ask(llm)


@pytest.mark.process
def test_a_model_that_is_missing_there_is_said_by_the_worker(folder, tmp_path):
    """An error while unpickling would leave the pool waiting for ever; this one comes back."""
    llm = build(llama_index_rapid.RapidLLM, folder)
    llm.__dict__["target"] = str(tmp_path / "gone.gguf")
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(RapidError, match="gone.gguf does not"):
        pool.apply_async(asked, (llm,)).get(timeout=60)


@pytest.mark.process
def test_an_ingestion_pipeline_of_two_workers_is_refused_with_the_reason(folder):
    llm = build(llama_index_rapid.RapidLLM, folder)
    documents = [Document(text=f"document {number}") for number in range(4)]
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(), Tagged(llm=llm)], disable_cache=True)
    with pytest.raises(ConfigurationError, match="each worker would load the models again.*Leave out num_workers"):
        pipeline.run(documents=documents, num_workers=2)
    nodes = pipeline.run(documents=documents)
    assert {node.metadata["process"] for node in nodes} == {os.getpid()}
    assert [node.metadata["answer"] for node in nodes] == [ask(llm, node.get_content()) for node in nodes]


async def test_an_asynchronous_pipeline_of_two_workers_too(folder):
    """Its workers are forked."""
    llm = build(llama_index_rapid.RapidLLM, folder)
    pipeline = IngestionPipeline(transformations=[Tagged(llm=llm)], disable_cache=True)
    with pytest.raises(ConfigurationError, match="num_workers"):
        await pipeline.arun(documents=[Document(text="a"), Document(text="b")], num_workers=2)


# --- what cannot go ---------------------------------------------------------------------------------------------------


def test_over_an_engine(host, engine):
    llm = host(engine=engine)
    written = io.BytesIO()
    with pytest.raises(NotPicklableError, match=r"engine is an object.*target=") as no:
        pickle.Pickler(written).dump(llm)
    assert len(written.getvalue()) < 1000  # before anything of the engine was written
    assert isinstance(no.value, pickle.PicklingError)


def test_inside_of_a_component_that_leaves_out_what_cannot_be_pickled(engine):
    """LlamaIndex's components would arrive without their LLM, and answer with another one."""
    extractor = SummaryExtractor(llm=llama_index_rapid.RapidLLM(engine=engine), num_workers=1)
    for each in (extractor, IngestionPipeline(transformations=[extractor]), {"a": [extractor]}):
        with pytest.raises(NotPicklableError, match="engine is an object"):
            pickle.dumps(each)
    pipeline = IngestionPipeline(transformations=[extractor], disable_cache=True)
    with pytest.raises(NotPicklableError, match="engine is an object"):
        pipeline.run(documents=[Document(text="a"), Document(text="b")], num_workers=2)


def test_over_model_objects(host):
    llm = host(model=tiny_model("llama", 0), tokenizer=byte_tokenizer())
    with pytest.raises(NotPicklableError, match=r"\(model=\.\.\.\) cannot be pickled"):
        pickle.dumps(llm)


class WithALock:
    """A part that cannot be pickled."""

    def __init__(self):
        self.lock = threading.Lock()

    def split_text(self, text):
        return [text]


def test_a_part_that_cannot_be_pickled_is_named(folder):
    llm = build(langchain_rapid.ChatRapid, folder, text_splitter=WithALock())
    with pytest.raises(NotPicklableError, match="its text_splitter is WithALock"):
        pickle.dumps(llm)
    llama = build(llama_index_rapid.RapidLLM, folder, completion_to_prompt=lambda text: f"> {text}")
    with pytest.raises(NotPicklableError, match="its completion_to_prompt"):
        pickle.dumps(llama)


def test_cloudpickle_takes_functions(folder):
    llm = build(llama_index_rapid.RapidLLM, folder, completion_to_prompt=lambda text: f"> {text}")
    again = pickle.loads(cloudpickle.dumps(llm))
    assert again.completion_to_prompt("a") == "> a"


def test_an_observer_stays_behind(folder):
    """LlamaIndex's callbacks watch; without them the answers are the same."""
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.callbacks.base_handler import BaseCallbackHandler

    class Handler(BaseCallbackHandler):
        def __init__(self):
            super().__init__([], [])
            self.lock = threading.Lock()

        on_event_start = on_event_end = start_trace = end_trace = lambda self, *args, **kwargs: ""

    llm = build(llama_index_rapid.RapidLLM, folder, callback_manager=CallbackManager([Handler()]))
    again = pickle.loads(pickle.dumps(llm))
    assert again.callback_manager.handlers == [] and ask(again) == ask(llm)


def test_an_embedder_goes_by_name(tmp_path):
    embedder = SentenceTransformerEmbedder(tmp_path, threshold=0.2)
    again = pickle.loads(pickle.dumps(embedder))
    assert (again.name, again.threshold) == (tmp_path.name, 0.2)


@pytest.mark.long
def test_no_gigabytes_by_default():
    """Over the embedded model: its tensors lie in blocks of 64 MiB, and each was written with its whole block."""
    if not packaged.is_pulled("smollm2-135m-instruct"):
        pytest.skip("the embedded model has not been fetched")
    with llama_index_rapid.RapidLLM() as llm:
        assert len(pickle.dumps(llm)) < 100_000
        weight = llm.rapid_engine.target.model.model.norm.weight
        assert len(pickle.dumps(weight)) < 100_000


def test_partial_functions_over_an_llm(folder):
    call = pickle.loads(pickle.dumps(functools.partial(ask, build(langchain_rapid.RapidLLM, folder))))
    assert call() == ask(build(langchain_rapid.RapidLLM, folder))
