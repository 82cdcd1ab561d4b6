"""The packaged model's tokenizer gives the tokens of the one that transformers converts, but splits otherwise."""

import pytest

from rapid_integrations import packaged
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.splits import splitting
from rapid_integrations.models.gguf.tokenizer import tokenizer_of
from tests.toys.repository import ROOT

pytestmark = pytest.mark.slow


def test_pages_have_the_tokens_of_transformers_tokenizer():
    from transformers import PreTrainedTokenizerFast

    header = read_header(packaged.pull("smollm2-135m-instruct"))
    file = {"gguf_file": header.path.name, "local_files_only": True}
    theirs = PreTrainedTokenizerFast.from_pretrained(header.path.parent, **file)
    theirs.backend_tokenizer.pre_tokenizer = splitting("smollm")
    ours = tokenizer_of(header)
    assert ours.get_vocab() == theirs.get_vocab() and ours.special_tokens_map == theirs.special_tokens_map
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert len(pages) > 20
    for page in pages:
        assert ours(page.read_text())["input_ids"] == theirs(page.read_text())["input_ids"]
