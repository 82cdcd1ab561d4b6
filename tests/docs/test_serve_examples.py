"""The examples of `rapid serve` run as they stand, against a server on loopback."""

import gc
import runpy
import shutil
import subprocess

import pytest

from tests.toys.repository import ROOT
from tests.toys.server_app import address, app_of, engine  # noqa: F401

EXAMPLES = ROOT / "examples" / "serve"
NEEDED = {"openai_package": "openai", "langchain_chat_openai": "langchain_openai"}
NEEDED["llama_index_openai_like"] = "llama_index.llms.openai_like"

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def what_clients_leave_open():
    """Collect the sockets of clients that have no end of their own here, not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The examples beside the beginning of the handbook: a model of bytes reads all of it in twenty seconds."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, folder / "serve")
    text = (EXAMPLES.parent / "handbook.md").read_text()
    (folder / "handbook.md").write_text(text[:6000])
    return folder / "serve"


@pytest.fixture
def served(address, monkeypatch):  # noqa: F811
    monkeypatch.setenv("RAPID_URL", f"{address}/v1")
    monkeypatch.setenv("RAPID_MODEL", "tiny")
    return address


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20")
def test_the_example_answers(name, served, examples, capsys):
    pytest.importorskip(NEEDED[name])
    runpy.run_path(str(examples / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert len(said.strip()) > 4
    assert name != "openai_package" or said.count("tokens were read before") == 2


def test_the_curl_example_answers(served, examples):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = subprocess.run(["sh", str(examples / "curl.sh")], capture_output=True, timeout=60, check=True)
    said = done.stdout.decode()
    assert "data: [DONE]" in said and '"deleted":true' in said and '"sources":[{' in said


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.iterdir()} == {*NEEDED, "curl"}
