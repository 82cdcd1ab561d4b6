"""A small model in a folder as `save_pretrained` leaves it, for tests that change its files; and a home for each."""

import json
import shutil

import huggingface_hub.constants
import pytest

from tests.toys.models import byte_tokenizer, tiny_model


@pytest.fixture
def home(tmp_path, monkeypatch):
    """No hub, and a RAPID_HOME and a working folder of the test's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the variable is read at import
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """The folder that tests take copies of."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama", 1).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy of it."""
    return shutil.copytree(original, tmp_path / "tiny")


def change(folder, file="config.json", **changes):
    """Give fields of a JSON file of the folder other values."""
    content = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps(content))
