"""Fixtures of the LlamaIndex class over one tiny engine."""

from tests.toys.llama_index_llms import (
    base_llm,
    embedding,
    given,
    index,
    llm,
    nothing_was_retrieved,
    settings,
    shared_llm,
)

__all__ = ["base_llm", "embedding", "given", "index", "llm", "nothing_was_retrieved", "settings", "shared_llm"]
