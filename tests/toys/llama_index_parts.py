"""Real LlamaIndex parts without a model behind them."""

from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from tests.toys.embedder import HashEmbedder
from tests.toys.models import words

PARAGRAPHS = [f"Section {number}. {words(number, 34)}." for number in range(12)]
DOCUMENT = "\n\n".join(PARAGRAPHS)


class HashEmbedding(BaseEmbedding):
    """Word overlap as an embedding; counts what it is asked to embed."""

    texts: list[str] = []
    queries: list[str] = []

    def _vector(self, text):
        return HashEmbedder().embed_query(text).tolist()

    def _get_text_embedding(self, text):
        self.texts.append(text)
        return self._vector(text)

    def _get_query_embedding(self, query):
        self.queries.append(query)
        return self._vector(query)

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


def nodes(paragraphs=PARAGRAPHS, document="handbook", **metadata):
    made, position = [], 0
    for paragraph in paragraphs:
        node = TextNode(
            text=paragraph, start_char_idx=position, end_char_idx=position + len(paragraph), metadata=metadata
        )
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=document)
        made.append(node)
        position += len(paragraph) + 2
    return made
