"""Published vocabularies with the tokens that llama.cpp keeps beside them: a folder that RAPID_GGUF_VOCABULARIES names.

They are the files "ggml-vocab-*.gguf" in llama.cpp's folder "models", with texts (".inp") and their tokens (".out").
"""

import os
from pathlib import Path

import pytest

from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.tokenizer import tokenizer_of

FOLDER = os.environ.get("RAPID_GGUF_VOCABULARIES")
FILES = sorted(Path(FOLDER).glob("*.gguf")) if FOLDER else []
pytestmark = pytest.mark.slow


@pytest.mark.skipif(not FOLDER, reason="RAPID_GGUF_VOCABULARIES names no folder")
def test_the_folder_has_vocabularies():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_texts_have_the_tokens_that_lie_beside_the_vocabulary(path):
    beside = [path.with_name(f"{path.name}.{kind}") for kind in ("inp", "out")]
    header = read_header(path)
    if not all(each.exists() for each in beside) or header.metadata["tokenizer.ggml.model"] == "bert":
        pytest.skip("no texts, or no decoder")
    between = "\n__ggml_vocab_test__\n"
    texts = beside[0].read_bytes().decode().removesuffix(between).split(between)
    expected = [[int(token) for token in line.split()] for line in beside[1].read_text().splitlines()]
    tokenizer = tokenizer_of(header).backend_tokenizer
    found = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert [text for text, own, theirs in zip(texts, found, expected, strict=True) if own != theirs] == []
