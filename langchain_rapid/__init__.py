"""RAPID as an LLM and a chat model of LangChain. Only one line of a chain changes.

    llm = ChatRapid(target="meta-llama/Llama-3.1-8B-Instruct")
    chain = {"context": retriever | in_document_order | format, "question": RunnablePassthrough()} | prompt | llm

Importing this package loads no model code. Building a model loads it.
"""

from __future__ import annotations

from langchain_rapid.chat_model import ChatRapid
from langchain_rapid.document_order import in_document_order
from langchain_rapid.errors import ContextOverflowError
from langchain_rapid.llm import RapidLLM
from langchain_rapid.provider import register_provider
from langchain_rapid.read_ahead import aread_ahead, read_ahead
from langchain_rapid.speculative_rag import speculative_rag
from langchain_rapid.template_capture import capture_templates

__all__ = [
    "ChatRapid",
    "ContextOverflowError",
    "RapidLLM",
    "aread_ahead",
    "capture_templates",
    "in_document_order",
    "read_ahead",
    "register_provider",
    "speculative_rag",
]
