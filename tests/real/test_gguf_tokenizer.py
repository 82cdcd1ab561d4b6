"""The packaged model's tokenizer is the one that transformers converts, byte for byte."""

import pytest

from rapid_integrations import packaged
from rapid_integrations.models.gguf import tokenizer as of_files
from rapid_integrations.models.gguf.byte_level import byte_level
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.tokenizer import tokenizer_of

pytestmark = pytest.mark.slow


def saved(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_converted_as_transformers_converts_it(tmp_path, monkeypatch):
    header = read_header(packaged.pull("smollm2-135m-instruct"))
    assert byte_level(header) is not None
    ours = saved(tokenizer_of(header), tmp_path / "ours")
    monkeypatch.setattr(of_files, "byte_level", lambda header: None)
    assert saved(tokenizer_of(header), tmp_path / "theirs") == ours
