"""Fixtures of the LangChain classes over one tiny engine."""

from tests.toys.langchain_llms import capturing, chat, either, engine, llm, seen

__all__ = ["capturing", "chat", "either", "engine", "llm", "seen"]
