"""A folder with a tiny model, an embedder and documents, for the `rapid` command to run in."""

import pytest

from rapid_integrations.models.loader import load
from tests.toys.embedding_model import save_tiny_embedder
from tests.toys.light_model import light_weights
from tests.toys.models import byte_tokenizer, words
from tests.toys.thinking import switched_model, switched_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    # Its answer goes on for thousands of tokens, so there is time to stop it.
    light_weights(4, max_position_embeddings=8192).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    switched_model().save_pretrained(folder / "switched")
    switched_tokenizer().save_pretrained(folder / "switched")
    save_tiny_embedder(folder / "embedder")
    (folder / "document.md").write_text(words(1, 800))
    (folder / "other.txt").write_text("the cat sat on a mat")
    (folder / "empty.txt").write_text(" \n")
    (folder / "list.json").write_text("[1]")
    (folder / "wrong.json").write_text('{"type": "strin"}')
    (folder / "schema.json").write_text(
        '{"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}'
    )
    (folder / "latin.txt").write_bytes("Größe".encode("latin-1"))
    for dtype in ("auto", "float32"):  # a program's first start of a model would import transformers for seconds
        load(folder / "model", dtype=dtype)
    return folder
