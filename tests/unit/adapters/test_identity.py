"""Who an LLM is, for caches of answers: equal in two processes for equal models and parts, else different."""

import functools
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding as MockEmbeddings
from langchain_core.retrievers import BaseRetriever
from langchain_text_splitters import CharacterTextSplitter
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.schema import TextNode
from pydantic import PrivateAttr, SecretStr

from rapid_integrations import RapidEngine
from rapid_integrations.adapters.identity import part_key
from tests.toys.embedder import HashEmbedder
from tests.toys.host_llms import HOSTS, SMALL, ask, build
from tests.toys.llama_index_parts import HashEmbedding, nodes
from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.toys.tagged import Tagged

LLAMA, PLAIN, CHAT = HOSTS
NODES = [TextNode(text="a node")]


def over(seed, host=LLAMA, **settings):
    """An LLM over model objects, all of one name."""
    embedder = {"embed_model" if host is LLAMA else "embeddings": HashEmbedder()}
    return host(model=tiny_model("llama", seed), tokenizer=byte_tokenizer(), **{**embedder, **settings})


def who(llm):
    """What a cache of the host's keeps answers under."""
    if isinstance(llm, LLAMA):
        return get_transformation_hash(NODES, SummaryExtractor(llm=llm))
    if hasattr(llm, "_get_llm_string"):
        return llm._get_llm_string()
    settings = llm.asdict() if hasattr(llm, "asdict") else llm.dict()  # what older versions call it
    return str(sorted(settings.items(), key=str))


@pytest.mark.parametrize("host", HOSTS)
def test_other_weights_under_one_name(host):
    assert who(over(0, host)) != who(over(1, host))
    assert who(over(0, host)) == who(over(0, host))  # other objects, the same weights


@pytest.mark.parametrize("host", HOSTS)
def test_two_engines(host):
    engines = [
        RapidEngine.from_models(tiny_model("llama", seed), byte_tokenizer(), embedder="all-minilm-l6-v2")
        for seed in (0, 1, 0)
    ]
    one, another, again = (who(host(engine=engine)) for engine in engines)
    assert one == again != another


@pytest.mark.parametrize("host", HOSTS)
def test_a_drafter_counts(host):
    assert who(over(0, host)) != who(over(0, host, drafter_model=tiny_model("llama", 1)))


@pytest.mark.parametrize("host", HOSTS)
def test_a_setting_counts(host):
    assert who(over(0, host)) != who(over(0, host, temperature=0.5)) != who(over(0, host, eta=3.0))


def test_an_engines_own_compressor_counts():
    class Other(HashEmbedder):
        fingerprint = "another"

    model, tokenizer = tiny_model("llama", 0), byte_tokenizer()
    one, other, again = (
        LLAMA(engine=RapidEngine.from_models(model, tokenizer, embedder=embedder))
        for embedder in (HashEmbedder(), Other(), HashEmbedder())
    )
    assert who(one) == who(again) != who(other)


def test_llama_indexs_parts_count():
    index = VectorStoreIndex(nodes(), embed_model=HashEmbedding(texts=[], queries=[]))
    kinds = {
        "plain": {},
        "embed_model": {"embed_model": HashEmbedder(threshold=0.2)},
        "host's embed_model": {"embed_model": HashEmbedding(texts=[], queries=[])},
        "named": {"embed_model": "somebody/elses-embedder"},
        "node_parser": {"node_parser": SentenceSplitter(chunk_size=100, chunk_overlap=0)},
        "another node_parser": {"node_parser": SentenceSplitter(chunk_size=200, chunk_overlap=0)},
        "retriever": {"retriever": index.as_retriever(similarity_top_k=2)},
        "another retriever": {"retriever": index.as_retriever(similarity_top_k=3)},
        "postprocessor": {"node_postprocessors": [SimilarityPostprocessor(similarity_cutoff=0.5)]},
        "another postprocessor": {"node_postprocessors": [SimilarityPostprocessor(similarity_cutoff=0.6)]},
        "pipeline scores": {"use_pipeline_scores": False},
        "prompt": {"completion_to_prompt": who_knows},
    }
    found = {kind: who(over(0, **settings)) for kind, settings in kinds.items()}
    assert len(set(found.values())) == len(found)
    parser = {"node_parser": SentenceSplitter(chunk_size=100, chunk_overlap=0)}
    assert who(over(0, **parser)) == found["node_parser"]


def who_knows(text, system_prompt=None):
    return text


class Few(BaseRetriever):
    count: int = 2

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(query)][: self.count]


def test_langchains_parts_count():
    kinds = {
        "plain": {},
        "embeddings": {"embeddings": HashEmbedder(threshold=0.2)},
        "splitter": {"text_splitter": CharacterTextSplitter(chunk_size=100, chunk_overlap=0)},
        "another splitter": {"text_splitter": CharacterTextSplitter(chunk_size=200, chunk_overlap=0)},
        "retriever": {"retriever": Few()},
        "another retriever": {"retriever": Few(count=1)},
        "templates": {"use_templates": False},
    }
    found = {kind: who(over(0, CHAT, **settings)) for kind, settings in kinds.items()}
    assert len(set(found.values())) == len(found)
    assert who(over(0, CHAT, retriever=Few())) == found["retriever"]


def identities(folder):
    return {host.__module__: who(build(host, folder)) for host in HOSTS}


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_equal_settings_in_two_processes_agree(folder):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(identities, (folder,)) == identities(folder)


@pytest.mark.process
@pytest.mark.slow
def test_equal_settings_in_a_process_that_has_nothing_of_this_one(folder):
    here = "tests.unit.adapters.test_identity"
    program = f"from {here} import identities, json\nprint(json.dumps(identities({str(folder)!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == identities(folder)


def test_an_ingestion_pipelines_cache_tells_two_models_apart():
    cache = IngestionCache()
    answers = []
    for seed in (0, 1, 0):
        llm = over(seed, max_new_tokens=4, compression=SMALL)
        (node,) = IngestionPipeline(transformations=[Tagged(llm=llm)], cache=cache).run(
            nodes=[TextNode(text="hello there")]
        )
        answers.append(node.metadata["answer"])
    assert answers[0] == answers[2] != answers[1]


def test_langchains_cache_tells_two_models_apart():
    cache = InMemoryCache()
    one, other, again = (over(seed, CHAT, max_new_tokens=4, cache=cache).invoke("hello there") for seed in (0, 1, 0))
    assert one.content == again.content != other.content
    assert len(cache._cache) == 2


def test_what_is_written_out_says_what_runs(folder, engine):
    by_name = build(LLAMA, folder)
    data = by_name.to_dict()
    assert data["target"] == str(folder) and data["identity"]["models"] == {"target": str(folder)}
    assert len(data["identity"]["weights"]["target"]) == 64
    assert LLAMA(engine=engine).to_dict()["target"] == engine.target.name != by_name.target
    again = LLAMA.from_dict(data)
    assert again.rapid_engine is by_name.rapid_engine and again.to_dict().keys() == data.keys()


def test_no_secret_is_written_out():
    class Hosted(HashEmbedder):
        def __init__(self, key):
            super().__init__()
            self.fingerprint = None
            self.api_key = SecretStr(key)

    one, other = part_key(Hosted("sk-1")), part_key(Hosted("sk-2"))
    assert one != other and "sk-1" not in one


def test_objects_that_cannot_be_compared_are_each_their_own():
    one, other = object(), object()
    assert part_key(one) == part_key(one) != part_key(other)
    assert part_key(lambda text: text) != part_key(lambda text: text * 2)
    large = [str(number) for number in range(10_000)]
    assert part_key({"large": large}) == part_key({"large": large}) != part_key({"large": list(large)})


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_using_it_changes_nothing(host):
    """LlamaIndex's parts count their events, which are no settings."""
    document = words(3, 700)
    parts = {"embeddings": MockEmbeddings(size=8)}
    if host is LLAMA:
        parts = {
            "embed_model": MockEmbedding(embed_dim=8),
            "node_parser": SentenceSplitter(chunk_size=300, chunk_overlap=0),
        }
        parts["node_postprocessors"] = [SimilarityPostprocessor(similarity_cutoff=0.0)]
    parts |= {"model": tiny_model("llama", 0, max_position_embeddings=8192), "tokenizer": byte_tokenizer()}
    llm = host(compression=SMALL, max_new_tokens=2, **parts)
    before = who(llm)
    ask(llm, f"{document}\n\nwhich words are there?")
    assert who(llm) == before


class Weighted:
    """What holds its settings where `vars` does not show them."""

    __slots__ = ("__dict__", "weight")

    def __init__(self, weight):
        self.weight = weight


class Instructed(MockEmbedding):
    """As LlamaIndex's documentation writes an embedder of one's own."""

    _instruction: str = PrivateAttr()

    def __init__(self, instruction):
        super().__init__(embed_dim=8)
        self._instruction = instruction


@pytest.mark.parametrize(
    "make",
    [
        lambda number: functools.partial(who_knows, system_prompt=str(number)),
        lambda number: Instructed(f"instruction {number}"),
        lambda number: torch.full((2,), float(number)),
        Weighted,
    ],
    ids=["partial", "private", "tensor", "slots"],
)
def test_settings_that_do_not_show_count(make):
    assert part_key(make(1)) != part_key(make(2))
    one = make(1)
    assert part_key(one) == part_key(one)


def test_equal_partial_functions_and_private_settings_agree():
    assert part_key(Instructed("one")) == part_key(Instructed("one"))
    assert part_key(functools.partial(who_knows, "a")) == part_key(functools.partial(who_knows, "a"))


def test_a_part_that_holds_itself():
    class Knot:
        pass

    knot = Knot()
    knot.itself = knot
    assert part_key(knot) == part_key(knot)


@pytest.mark.parametrize("host", HOSTS)
def test_who_it_is_needs_no_look_at_files_once_it_is_built(host, tmp_path, monkeypatch):
    """An agent asks in its event loop, at every call."""
    name = "embed_model" if host is LLAMA else "embeddings"
    llm = over(0, host, **{name: str(tmp_path)})

    def stat(*_, **__):
        raise AssertionError("a file was looked at")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stat)
        patch.setattr(Path, "exists", stat)
        assert llm._identity_of_answers() == llm._identity_of_answers()
