"""What is given as a model's name and leads to none: each kind has its own message."""

import pytest

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.loader import load

pytestmark = pytest.mark.usefixtures("home")


def test_a_folder_that_is_none_of_a_model(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("hello")
    with pytest.raises(ModelLoadError, match="notes is not a model folder: it holds neither a config.json nor a GGUF"):
        load(tmp_path / "notes")


def test_a_folder_with_several_gguf_files(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelLoadError, match="2 GGUF files. Name one of them"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "~/nowhere", "nowhere.gguf", "models/deep/nowhere"])
def test_a_path_that_leads_nowhere(name):
    with pytest.raises(ModelLoadError, match="does not exist|neither an existing file or folder"):
        load(name)


def test_a_file_that_is_no_model(folder):
    with pytest.raises(ModelLoadError, match="is not a model: give a GGUF file, a model folder"):
        load(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["", "  "])
def test_no_name_at_all(name):
    with pytest.raises(ModelLoadError):
        load(name)
