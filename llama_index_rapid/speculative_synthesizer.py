"""Speculative RAG (arXiv 2407.08223) as a response synthesizer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.types import RESPONSE_TEXT_TYPE

from llama_index_rapid.errors import reaching_the_caller
from llama_index_rapid.llm import RapidLLM
from rapid_integrations.engine.speculative_rag.settings import SpeculativeRAGConfig
from rapid_integrations.errors import ConfigurationError, shown

if TYPE_CHECKING:
    from rapid_integrations.engine.speculative_rag import SpeculativeAnswer, SpeculativeRAG

_DOING = "a part that this request was given"


class SpeculativeSynthesizer(BaseSynthesizer):
    """Drafts from several subsets of the nodes at once; the LLM's target chooses one draft.

        synthesizer = SpeculativeSynthesizer(llm=llm, drafts=5, passages=2)
        query_engine = index.as_query_engine(response_synthesizer=synthesizer, similarity_top_k=10)

    The engine's drafter writes the drafts (the target, if it drafts for itself). No model reads all nodes.

    Args:
        llm: a local `RapidLLM`.
        text_qa_template: the template of a draft, with the variables context_str and query_str.
        streaming: whether responses are streams. The answer comes in one piece, because it is chosen when it is whole.
        config: settings of `SpeculativeRAGConfig`.

    Attributes:
        latest: the drafts and scores of the latest response; None before the first.

    Raises:
        ConfigurationError: `llm` is something else, or a setting is unknown or has a wrong value.
    """

    def __init__(
        self,
        llm: RapidLLM,
        *,
        text_qa_template: BasePromptTemplate | None = None,
        streaming: bool = False,
        **config: Any,
    ) -> None:
        if not isinstance(llm, RapidLLM):
            raise ConfigurationError(
                f"SpeculativeSynthesizer takes a RapidLLM, not {shown(llm)}: it needs the probabilities of its models"
            )
        super().__init__(llm=llm, streaming=streaming)
        self._template = text_qa_template or DEFAULT_TEXT_QA_PROMPT_SEL
        self._rapid = llm
        self._config = SpeculativeRAGConfig(**config)
        self.latest: SpeculativeAnswer | None = None

    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._template}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        self._template = prompts_dict.get("text_qa_template", self._template)

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> RESPONSE_TEXT_TYPE:
        """Return the chosen draft. `response_kwargs` are further variables of the template."""
        with reaching_the_caller(_DOING):
            drafting, arguments = self._asking(query_str, text_chunks, response_kwargs)
            self.latest = drafting.answer(**arguments)
        return _piece(self.latest.text) if self._streaming else self.latest.text

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """Do what `get_response` does without blocking the event loop."""
        with reaching_the_caller(_DOING):
            drafting, arguments = self._asking(query_str, text_chunks, response_kwargs)
            self.latest = await drafting.aanswer(**arguments)
        return _apiece(self.latest.text) if self._streaming else self.latest.text

    def _asking(
        self, query: str, passages: Sequence[str], values: dict[str, Any]
    ) -> tuple[SpeculativeRAG, dict[str, Any]]:
        """Return what drafts, and its arguments."""
        from rapid_integrations.engine.speculative_rag import SpeculativeRAG

        llm = self._rapid

        def request(text: str) -> Any:
            return llm._request_of(self._template, {**values, "query_str": query, "context_str": text})

        options = request("").options
        names = ("sampling", "apply_chat_template", "chat_template_kwargs")
        kept = {name: options[name] for name in names if name in options}
        arguments = {"passages": passages, "question": query, "prompt_of": lambda text: request(text).prompt, **kept}
        return SpeculativeRAG(llm.rapid_engine, self._config), arguments


def _piece(text: str) -> Generator[str, None, None]:
    yield text


async def _apiece(text: str) -> AsyncGenerator[str, None]:
    yield text
