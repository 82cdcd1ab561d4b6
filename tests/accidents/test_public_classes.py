"""Every public class copied, deep-copied, pickled, used in a forked child and closed, with the outcome of each.

A class that is added and not listed here fails `test_every_public_class_is_listed`.
"""

import asyncio
import copy
import importlib
import importlib.util
import inspect
import io
import pickle
import pkgutil

import pytest
import torch
from llama_index.core import PromptTemplate
from pydantic import BaseModel

import langchain_rapid
import llama_index_rapid
import rapid_integrations as rapid
from rapid_integrations import RapidEngine, errors
from rapid_integrations.cache import KVCache
from rapid_integrations.compression import (
    BgeM3Embedder,
    Chunk,
    ChunkIndex,
    Compression,
    Compressor,
    EmbeddingCache,
    HostEmbedder,
    Passage,
    PassageCompressor,
    ScoredChunk,
    SentenceTransformerEmbedder,
)
from rapid_integrations.compression.cross_encoder import CrossEncoderReranker
from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.documents import ReadLimits, Skipped
from rapid_integrations.engine.async_stream import AsyncCompletionStream
from rapid_integrations.engine.chat import ChatAnswer, Turn
from rapid_integrations.engine.speculative_rag import (
    ScoredDraft,
    SpeculativeAnswer,
    SpeculativeRAG,
    SpeculativeRAGConfig,
)
from rapid_integrations.errors import EngineClosedError, NotPicklableError, RapidError
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.outputs import Candidate, RejectedToken, Trace, TracedRound, TracedToken
from rapid_integrations.prompt import RenderedPrompt, TemplateArguments
from rapid_integrations.prompt.segmentation import Segmentation, segment
from rapid_integrations.sampling import Law, Penalties, Randomness
from rapid_integrations.sampling.trees import TreeVerdict
from rapid_integrations.sampling.verification import Verdict
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.forking import in_child
from tests.toys.host_llms import HOSTS, SMALL, ask, build, folder, registry  # noqa: F401, F811 (fixtures)
from tests.toys.models import byte_tokenizer, tiny_model, words

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PROMPT = rapid.Prompt.from_context(words(1, 80), "which words are there?")
SHORT = rapid.SamplingParams(max_new_tokens=3)


@pytest.fixture(scope="module")
def world():
    """One engine and what it gives."""
    model, tokenizer = tiny_model("llama", 0), byte_tokenizer()
    engine = RapidEngine.from_models(model, tokenizer, embedder=HashEmbedder(), compression=SMALL)
    completion = engine.generate(PROMPT, sampling=SHORT, trace=True)
    return {"engine": engine, "completion": completion, "prepared": engine.explain(PROMPT)}


def _chunk():
    return Chunk(0, 0, 2, "ab", 1)


def _draft(world):
    return ScoredDraft((0, 1), "passages", world["completion"], 0.5, 0.5, 0.5)


# Plain values: a copy is equal, a pickle comes back equal, and both go on being used in a child.
VALUES = {
    rapid.Completion: lambda w: w["completion"],
    rapid.CompletionChunk: lambda w: rapid.CompletionChunk(text="a", token_ids=(1,)),
    rapid.DecodeStats: lambda w: w["completion"].stats,
    rapid.Usage: lambda w: w["completion"].usage,
    rapid.ReadAhead: lambda w: w["engine"].read(words(2, 40)),
    rapid.RetrievedChunk: lambda w: w["completion"].retrieved[0],
    rapid.ToolCall: lambda w: rapid.ToolCall(id="1", name="f", arguments={"a": [1]}),
    rapid.InvalidToolCall: lambda w: rapid.InvalidToolCall(name="f", arguments='{"a', error="cut"),
    Segmentation: lambda w: segment("Which words are there?"),
    rapid.CompressionConfig: lambda w: SMALL,
    rapid.SamplingParams: lambda w: SHORT,
    rapid.SpeculationConfig: lambda w: rapid.SpeculationConfig(law="target"),
    rapid.StructuredOutput: lambda w: rapid.StructuredOutput(regex="a+"),
    rapid.Document: lambda w: rapid.read_document("docs/limits.md"),
    rapid.Documents: lambda w: rapid.read_documents(["docs/limits.md"]),
    rapid.PreparedPrompt: lambda w: w["prepared"],
    rapid.Prompt: lambda w: PROMPT,
    TemplateArguments: lambda w: TemplateArguments({"enable_thinking": False}),
    Turn: lambda w: Turn("q", "a"),
    SpeculativeRAGConfig: lambda w: SpeculativeRAGConfig(drafts=3),
    ScoredDraft: lambda w: _draft(w),
    SpeculativeAnswer: lambda w: SpeculativeAnswer((_draft(w),), 0),
    ReadLimits: lambda w: ReadLimits(),
    Skipped: lambda w: Skipped("a.png", "is a picture"),
    Chunk: lambda w: _chunk(),
    ScoredChunk: lambda w: ScoredChunk(_chunk(), 0.5),
    Passage: lambda w: Passage("a", 0.5),
    Compression: lambda w: w["prepared"].compression,
    RenderedPrompt: lambda w: w["prepared"].target,
    Verdict: lambda w: Verdict(1, 2),
    TreeVerdict: lambda w: TreeVerdict((0, 2), 1),
    Trace: lambda w: w["completion"].trace,
    TracedRound: lambda w: w["completion"].trace.rounds[0],
    TracedToken: lambda w: w["completion"].trace.rounds[0].tokens[0],
    Candidate: lambda w: Candidate.model_construct(text="a"),
    RejectedToken: lambda w: RejectedToken.model_construct(text="a"),
}
# What exists once: a copy is the thing itself, and a pickle is refused with the way out.
SHARED = {
    RapidEngine: lambda w: w["engine"],
    HuggingFaceLM: lambda w: w["engine"].target,
    Vocabulary: lambda w: w["engine"].vocabulary,
    LoadedModel: lambda w: LoadedModel(w["engine"].target, w["engine"].vocabulary),
    DefaultCompressor: lambda w: w["engine"].compressor,
    Compressor: lambda w: Compressor(HashEmbedder(), w["engine"].vocabulary),
    PassageCompressor: lambda w: PassageCompressor(list, w["engine"].vocabulary, w["engine"].compressor),
    EmbeddingCache: lambda w: EmbeddingCache(),
    CrossEncoderReranker: lambda w: CrossEncoderReranker("a folder"),
    ChunkIndex: lambda w: ChunkIndex.build([_chunk()], HashEmbedder(), EmbeddingCache()),
}
# What has one user: neither.
ONE_OWNER = {
    rapid.CompletionStream: lambda w: w["engine"].stream(PROMPT, sampling=SHORT),
    AsyncCompletionStream: lambda w: asyncio.run(w["engine"].astream(PROMPT, sampling=SHORT)),
    ChatAnswer: lambda w: rapid.Chat(w["engine"], words(1, 80), sampling=SHORT).ask("which?"),
    KVCache: lambda w: KVCache(1, 8),
}
# Loaded by name where they arrive; a copy is the same one.
BY_NAME = {
    SentenceTransformerEmbedder: lambda w: SentenceTransformerEmbedder("docs"),
    BgeM3Embedder: lambda w: BgeM3Embedder("docs"),
}
# Have tests of their own, or are the inside of a running request, which `ONE_OWNER` keeps.
ELSEWHERE = {
    *HOSTS,  # below
    llama_index_rapid.DocumentOrder,  # below
    llama_index_rapid.RapidProgram,  # below
    llama_index_rapid.SpeculativeSynthesizer,  # as the LLM that it holds
    SpeculativeRAG,  # as the engine that it holds
    llama_index_rapid.ReadAhead,  # as the LLM that it holds: tests/unit/llama_index_rapid/test_read_ahead.py
    rapid.Chat,  # below
    rapid.RemoteDrafter,  # an address; it holds nothing until an engine connects it
    rapid.RemoteEngine,  # as the engine: tests/unit/server/remote/test_engine.py
    HostEmbedder,  # a host's functions: as far as those can be pickled
    Law,
    Randomness,
    Penalties,
}
INSIDE = (
    "rapid_integrations.cli.options",
    "rapid_integrations.kernels.cpu",
    "rapid_integrations.kernels.cuda",
    "rapid_integrations.models.description",
    "rapid_integrations.structured",
    "rapid_integrations.tool_calls",
)
NAMED_INSIDE = (
    # bases of settings
    *("SamplingFields", "Settings", "SpeculationFields"),
    # the engine gives these to nobody
    *("Buffers", "FusedDecoder", "LayersState", "PackagedModel", "RecordedState", "RecurrentState", "Rows"),
    *("SavedState", "Segment", "StatePass", "StateShape", "TorchOps"),
)


NEEDED = {"triton": "rapid_integrations.kernels.cuda.", "ray": "rapid_integrations.server.ray_app"}
"""Packages that a checkout need not have, and the modules that cannot be imported without them."""


def public_classes():
    ours = ("rapid_", "llama_index_rapid", "langchain_rapid")
    found = {AsyncCompletionStream, ChatAnswer, Turn, DefaultCompressor, HuggingFaceLM, LoadedModel, Vocabulary}
    for package in (rapid, llama_index_rapid, langchain_rapid):
        names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
        for needed, of in NEEDED.items():
            if importlib.util.find_spec(needed) is None:
                names = [name for name in names if not name.startswith(of)]
        for name in (package.__name__, *names):
            module = importlib.import_module(name) if not name.endswith("__main__") else None
            for each in (getattr(module, public) for public in getattr(module, "__all__", ())):
                if inspect.isclass(each) and each.__module__.startswith(ours):
                    found.add(each)
    return {each for each in found if not getattr(each, "_is_protocol", False)}


def test_every_public_class_is_listed():
    listed = {*VALUES, *SHARED, *ONE_OWNER, *BY_NAME, *ELSEWHERE}
    missing = [
        each
        for each in public_classes() - listed
        if not issubclass(each, RapidError) and not f"{each.__module__}.{each.__name__}".startswith(INSIDE)
    ]
    assert [each.__name__ for each in missing if each.__name__ not in NAMED_INSIDE] == []
    assert {each for each in public_classes() if issubclass(each, RapidError)} >= {
        getattr(errors, n) for n in errors.__all__
    }


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value(world, kind):
    value = VALUES[kind](world)
    assert type(value) is kind
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert type(again) is kind and again == value
    assert len(pickle.dumps(value)) < 100_000
    assert in_child(lambda: pickle.loads(pickle.dumps(value)) == value) == "returned True"


@pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.__name__)
def test_what_exists_once(world, kind):
    value = SHARED[kind](world)
    assert isinstance(value, kind)
    assert copy.copy(value) is value and copy.deepcopy(value) is value
    assert copy.deepcopy({"inside": [value]})["inside"][0] is value
    refused(value)


@pytest.mark.parametrize("kind", ONE_OWNER, ids=lambda kind: kind.__name__)
def test_what_has_one_user(world, kind):
    value = ONE_OWNER[kind](world)
    assert isinstance(value, kind)
    for call in (copy.copy, copy.deepcopy):
        with pytest.raises(NotPicklableError, check=coded("not_picklable.copy")):
            call(value)
    refused(value)
    if kind is not KVCache:
        assert in_child(
            lambda: next(value) if kind is not AsyncCompletionStream else asyncio.run(anext(value))
        ).startswith("ForkedProcessError")
        if kind is AsyncCompletionStream:
            asyncio.run(value.aclose())
        else:
            value.close()
            value.close()


@pytest.mark.parametrize("kind", BY_NAME, ids=lambda kind: kind.__name__)
def test_what_is_loaded_by_name(world, kind):
    value = BY_NAME[kind](world)
    assert copy.copy(value) is value and copy.deepcopy(value) is value
    again = pickle.loads(pickle.dumps(value))
    assert (type(again), again.name, again.threshold) == (kind, value.name, value.threshold)


def refused(value):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        written = io.BytesIO()
        with pytest.raises(NotPicklableError, match="cannot be pickled.*In another process, "):
            pickle.Pickler(written, protocol).dump({"inside": [value]})
        assert len(written.getvalue()) < 1000  # before anything of what it holds was written


ERRORS = {
    "ContextOverflowError": {"model": "m", "prompt_tokens": 9, "new_tokens": 2, "context_window": 10},
    "MissingExtraError": {"feature": "a", "extra": "b"},
    "DocumentError": ("a.pdf", "is damaged"),
    "EngineClosedError": (),
}


ERROR_KINDS = [*(getattr(errors, name) for name in errors.__all__), langchain_rapid.ContextOverflowError]


@pytest.mark.parametrize("kind", ERROR_KINDS)
def test_an_error(kind):
    given = ERRORS.get(kind.__name__, ("what happened",))
    error = kind(**given) if isinstance(given, dict) else kind(*given)
    error.add_note("a note")
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


@pytest.mark.parametrize("host", HOSTS)
def test_an_llm(host, folder):  # noqa: F811 (a fixture)
    llm = build(host, folder)
    expected, engine = ask(llm), llm.rapid_engine
    for again in (copy.copy(llm), copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert again.rapid_engine is engine and ask(again) == expected
        again.close()
        again.close()
        with pytest.raises(EngineClosedError):
            ask(again)
    assert in_child(lambda: ask(llm)).startswith("ForkedProcessError")
    assert in_child(lambda: ask(pickle.loads(pickle.dumps(llm))) == expected) == "returned True"
    assert ask(llm) == expected
    llm.close()
    assert engine.closed


def test_a_postprocessor():
    order = llama_index_rapid.DocumentOrder()
    for again in (copy.copy(order), copy.deepcopy(order), pickle.loads(pickle.dumps(order))):
        assert type(again) is type(order) and again.to_dict() == order.to_dict()


def test_a_program_shares_the_engine_of_its_llm_and_travels_as_it_does(world):
    class Answer(BaseModel):
        text: str

    llm = llama_index_rapid.RapidLLM(engine=world["engine"])
    program = llama_index_rapid.RapidProgram(llm, Answer, PromptTemplate("{q}"))
    for again in (copy.copy(program), copy.deepcopy(program)):
        assert again._llm.rapid_engine is world["engine"] and again.output_cls is Answer
    with pytest.raises(NotPicklableError, match="engine"):
        pickle.dumps(program)


def test_an_engine_in_a_child_and_closed():
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer()) as engine:
        assert in_child(lambda: engine.generate("hello")).startswith("ForkedProcessError")
    with pytest.raises(EngineClosedError):
        engine.generate("hello")
    assert copy.deepcopy(engine) is engine


def test_a_chat(world):
    chat = rapid.Chat(world["engine"], words(1, 80), sampling=SHORT)
    list(chat.ask("which words?"))
    running = chat.ask("and why?")
    for again in (copy.copy(chat), copy.deepcopy(chat)):
        assert again.engine is chat.engine and again.turns == chat.turns
        list(again.ask("since when?"))
        assert len(again.turns) == len(chat.turns) + 1
    assert next(running) is not None  # a copy's question has not ended it
    running.close()
    refused(chat)


def test_tensors_of_an_arena_are_written_by_themselves():
    from rapid_integrations.cache.arena import Arena

    arena = Arena()
    tensors = [arena.copy(torch.ones(100)) for _ in range(3)]
    assert len(pickle.dumps(tensors)) < 10_000
    assert torch.equal(copy.deepcopy(tensors[1]), tensors[1])
