"""A forked child inherits memory but no threads: it is told so at once, and an engine of its own works."""

import os

import pytest

from rapid_integrations import Prompt, SamplingParams
from tests.toys.forking import in_child
from tests.toys.host_llms import CALLS, HOSTS, ask, build
from tests.toys.light_model import light_engine
from tests.toys.models import words

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
PROMPT = Prompt.from_context(words(1, 80), "which words are there?")
SHORT = SamplingParams(max_new_tokens=3)


ENGINE_CALLS = {
    "generate": lambda engine: engine.generate(PROMPT, sampling=SHORT),
    "stream": lambda engine: list(engine.stream(PROMPT, sampling=SHORT)),
    "explain": lambda engine: engine.explain(PROMPT),
    "count_tokens": lambda engine: engine.count_tokens("hello"),
    "clear_prefix_cache": lambda engine: engine.clear_prefix_cache(),
    "agenerate": lambda engine: __import__("asyncio").run(engine.agenerate(PROMPT, sampling=SHORT)),
    "astream": lambda engine: __import__("asyncio").run(engine.astream(PROMPT, sampling=SHORT)),
}


@pytest.mark.parametrize("name", ENGINE_CALLS)
def test_an_inherited_engine(engine, name):
    engine.generate(PROMPT, sampling=SHORT)
    said = in_child(lambda: ENGINE_CALLS[name](engine))
    assert said.startswith("ForkedProcessError: this engine was built in process") and "post_fork" in said
    assert engine.generate(PROMPT, sampling=SHORT).token_ids  # the parent goes on


@pytest.mark.parametrize("host", HOSTS)
def test_an_inherited_llm(host, folder):
    llm = build(host, folder)
    for name, call in CALLS["llama" if hasattr(llm, "complete") else "langchain"].items():
        if name not in ("rapid_engine", "get_num_tokens"):  # what is read off waits for nothing
            assert in_child(lambda call=call: call(llm)).startswith("ForkedProcessError"), name
    assert ask(llm) is not None


def test_an_inherited_stream(engine):
    with engine.stream(PROMPT, sampling=SamplingParams(max_new_tokens=50)) as stream:
        next(stream)
        assert in_child(lambda: next(stream)).startswith("ForkedProcessError")
        assert next(stream) is not None


def test_closing_in_the_child_leaves_the_parents(engine):
    assert in_child(engine.close) == "returned None"
    assert not engine.closed and engine.generate(PROMPT, sampling=SHORT).token_ids


@pytest.mark.parametrize("host", HOSTS)
def test_a_child_that_builds_its_own(host, folder):
    """One thread computes in these tests: a child can compute, too."""
    parents = build(host, folder)
    expected = ask(parents)

    def own():
        return ask(build(host, folder)) == expected

    assert in_child(own) == "returned True"


def test_asynchronous_requests_in_a_child_that_builds_its_own(engine, folder):
    import asyncio

    asyncio.run(engine.agenerate(PROMPT, sampling=SHORT))  # the parent's pool has threads
    expected = engine.generate(PROMPT, sampling=SHORT).token_ids

    def own():
        with light_engine() as mine:
            mine.compressor, mine.compression = engine.compressor, engine.compression
            return asyncio.run(mine.agenerate(PROMPT, sampling=SHORT)).token_ids == expected

    assert in_child(own) == "returned True"


# With several threads; in a process of its own, since this one has one thread.
PROGRAM = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import torch
from tests.toys.forking import in_child
from rapid_integrations import RapidEngine, SamplingParams

torch.set_num_threads(2)
case, folder = sys.argv[1:]
short = SamplingParams(max_new_tokens=3)
if case != "cold":
    with RapidEngine.from_pretrained(folder, dtype="float32") as parents:
        parents.generate("hello", sampling=short)
    torch.ones(1 << 22).exp().sum()  # with two threads: computing here in a child waits for ever

def own():
    with RapidEngine.from_pretrained(folder, dtype="float32") as engine:
        found = len(engine.generate("hello", sampling=short).token_ids)
        for chunk in engine.stream("hello", sampling=short):
            last = chunk
        assert last.usage.completion_tokens == found
        assert len(engine.fingerprints()["target"]) == 64
        return found + len(asyncio.run(engine.agenerate("hello", sampling=short)).token_ids)

if case == "hangs":
    def own():
        return torch.ones(1 << 22).exp().sum()

print(in_child(own, 5 if case == "hangs" else 60))
"""


@pytest.mark.parametrize(
    "case", ["warm", pytest.param("cold", marks=pytest.mark.slow), pytest.param("hangs", marks=pytest.mark.slow)]
)
def test_a_child_of_a_parent_that_computed_with_several_threads(case, folder, children):
    """gunicorn's preload, Celery's prefork and multiprocessing's fork, with an engine that the child builds.

    The last case shows what would happen otherwise: PyTorch itself, in the thread that the child inherited.
    """
    if case == "hangs" and (os.cpu_count() or 1) < 2:
        pytest.skip("one processor, one thread")
    done = children.run(PROGRAM, case, folder, seconds=180)
    if case == "hangs":
        assert "the child hangs" in done.stderr
    else:
        assert done.stdout.strip() == "returned 6", (done.stdout, done.stderr)
