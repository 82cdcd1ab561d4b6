"""RAPID as an LLM class of LlamaIndex. Only one line of a pipeline changes.

    llm = RapidLLM(target="meta-llama/Llama-3.1-8B-Instruct")
    query_engine = index.as_query_engine(llm=llm, similarity_top_k=200, node_postprocessors=[DocumentOrder()])

Importing this package loads no model code. Building a `RapidLLM` loads it.
"""

from __future__ import annotations

from llama_index_rapid.document_order import DocumentOrder
from llama_index_rapid.llm import RapidLLM
from llama_index_rapid.read_ahead import ReadAhead
from llama_index_rapid.speculative_synthesizer import SpeculativeSynthesizer
from llama_index_rapid.structured import RapidProgram

__all__ = ["DocumentOrder", "RapidLLM", "RapidProgram", "ReadAhead", "SpeculativeSynthesizer"]
