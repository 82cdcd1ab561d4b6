"""A step of an ingestion pipeline that asks an LLM."""

import os
from typing import Any

from llama_index.core.schema import TransformComponent


class Tagged(TransformComponent):
    """Asks an LLM about each node."""

    llm: Any

    def __call__(self, nodes, **_):
        for node in nodes:
            node.metadata.update(answer=self.llm.complete(node.get_content()).text, process=os.getpid())
        return nodes
