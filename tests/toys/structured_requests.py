"""An engine and a prompt for answers that a grammar holds."""

import functools

from rapid_integrations import (
    CompressionConfig,
    Prompt,
)
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine
from tests.toys.models import byte_tokenizer, words


@functools.cache
def engine():
    return light_engine(
        tokenizer=byte_tokenizer(merges=[("{", '"'), ("t", "h"), ("1", "2")]),
        embedder=HashEmbedder(threshold=-1.0),
        compression=CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1),
    )


PROMPT = Prompt.from_context(words(1, 60), "which words?")
