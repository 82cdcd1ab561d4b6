"""A step of an ingestion pipeline that prefills documents before the first question about them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, TransformComponent

from llama_index_rapid.document_order import document_of, in_document_order
from llama_index_rapid.llm import RapidLLM


class ReadAhead(TransformComponent):
    """Prefills what questions about the nodes' documents begin with. Put it last in an `IngestionPipeline`.

        llm = RapidLLM(prefix_cache_dir="cache")
        IngestionPipeline(transformations=[SentenceSplitter(), ReadAhead(llm=llm)]).run(documents=documents)

    The prompt is that of a query engine whose retriever returns all nodes of a document and whose node postprocessors
    end with `DocumentOrder`. It returns the nodes unchanged. A pipeline that finds its result in its own cache does not
    run its steps, so nothing is read again then.
    """

    llm: RapidLLM = Field(exclude=True, description="the LLM that will answer the questions")
    together: bool = Field(
        default=False,
        description="whether questions are about all documents in one prompt; if not, each document has its own",
    )
    text_qa_template: BasePromptTemplate = Field(
        default=DEFAULT_TEXT_QA_PROMPT_SEL,
        exclude=True,
        description="the query engine's text_qa_template, with the variables context_str and query_str",
    )

    @classmethod
    def class_name(cls) -> str:
        """Name for serialisation."""
        return "ReadAhead"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Read the nodes' documents and return the nodes."""
        for context in self._contexts(nodes):
            self.llm.read_ahead(self.text_qa_template, "query_str", context_str=context)
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Do what a call does without blocking the event loop."""
        for context in self._contexts(nodes):
            await self.llm.aread_ahead(self.text_qa_template, "query_str", context_str=context)
        return nodes

    def _contexts(self, nodes: Sequence[BaseNode]) -> list[str]:
        """Return the contexts as LlamaIndex's response synthesisers join them."""
        ordered = in_document_order([NodeWithScore(node=node) for node in nodes])
        groups = [ordered] if self.together else [list(group) for _, group in groupby(ordered, key=document_of)]
        texts = [
            [text for each in group if (text := each.node.get_content(metadata_mode=MetadataMode.LLM).strip())]
            for group in groups
        ]
        return ["\n\n".join(group) for group in texts if group]
