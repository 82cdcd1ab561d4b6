"""The Python of all pages runs, on tiny models."""

import atexit
import contextlib
import functools
import re

import pytest
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.selectors import PydanticSingleSelector

from llama_index_rapid import RapidLLM
from rapid_integrations import proposers
from rapid_integrations.evaluation import tasks
from tests.docs.conftest import DOCUMENT
from tests.docs.pages import DOCS, PAGES
from tests.toys import remote_engines
from tests.toys.llama_index_parts import HashEmbedding, nodes

BLOCKS = [
    pytest.param(path, block, id=f"{path.name}-{number}")
    for path in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
]


def before_llama_index():
    return {"index": VectorStoreIndex(nodes(), embed_model=HashEmbedding()), "llm": RapidLLM()}


def after_llama_index(names):
    assert isinstance(names["llm"], RapidLLM)
    if "query_engine" in names:
        assert names["query_engine"].query("which words?").source_nodes
    else:
        assert isinstance(names["selector"], PydanticSingleSelector)


def before_langchain():
    passages = [Document(text, metadata={"start_index": at}) for at, text in enumerate(DOCUMENT.split("\n\n"))]
    return {
        "retriever": RunnableLambda(lambda question: passages[::-1]),
        "format_documents": RunnableLambda(lambda found: "\n\n".join(each.page_content for each in found)),
        "prompt": PromptTemplate.from_template("Context:\n{context}\n\nQuestion: {question}\nAnswer:"),
    }


def after_langchain(names):
    assert isinstance(names["chain"].invoke("which words?", max_tokens=8), str)


def before_remote():
    return {"SERVER": server()}


@functools.cache
def server():
    """Start a server over a tiny engine, which ends with the tests; return its URL."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    serving = contextlib.ExitStack()
    atexit.register(serving.close)
    return serving.enter_context(remote_engines.serving(remote_engines.local_engine()))


# What stands around the examples: names that they take for granted, and a use of what they build.
BEFORE = {"llama_index.md": before_llama_index, "langchain.md": before_langchain, "remote.md": before_remote}
AFTER = {"llama_index.md": after_llama_index, "langchain.md": after_langchain}


@pytest.fixture
def registers_of_its_own(monkeypatch):
    """Let an example register what it defines without a trace in other tests."""
    for module, name in ((proposers, "PROPOSERS"), (tasks, "TASKS"), (tasks, "_MAKERS")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


@pytest.mark.parametrize(("path", "block"), BLOCKS)
def test_it_runs(path, block, tiny_models, workplace, registers_of_its_own, monkeypatch):
    monkeypatch.setattr(Settings, "_embed_model", HashEmbedding())
    names = BEFORE.get(path.name, dict)()
    exec(compile(block, path.name, "exec"), names)
    AFTER.get(path.name, lambda names: None)(names)


def test_there_are_blocks():
    assert {path.values[0].name for path in BLOCKS} >= {"README.md", "llama_index.md", "langchain.md", "evaluation.md"}


@pytest.mark.parametrize("name", ["add-a-proposer.md", "add-a-model-family.md", "add-a-task.md"])
def test_every_page_on_extending_has_an_example_and_is_short(name):
    assert name in {path.values[0].name for path in BLOCKS}
    assert len((DOCS / name).read_text().splitlines()) <= 50
