"""Embeddings, a retriever and compressors as LangChain's users write them."""

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_text_splitters import CharacterTextSplitter

from tests.toys.embedder import HashEmbedder
from tests.toys.models import words

PARAGRAPHS = [words(seed, 25) for seed in range(20, 26)]
DOCUMENT = "\n\n".join(PARAGRAPHS)
WANTED = PARAGRAPHS[3]


class Hashed(Embeddings):
    """The toy embedder as LangChain's."""

    def __init__(self):
        self.texts = []

    def embed_documents(self, texts):
        self.texts += texts
        return HashEmbedder().embed(texts).tolist()

    def embed_query(self, text):
        return HashEmbedder().embed_query(text).tolist()


class Best(BaseRetriever):
    """Finds two paragraphs."""

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(page_content=PARAGRAPHS[3]), Document(page_content=PARAGRAPHS[1])]


class Only(BaseDocumentCompressor):
    """Lets the wanted paragraph through."""

    def compress_documents(self, documents, query, callbacks=None):
        return [document for document in documents if WANTED in document.page_content]


def splitter():
    return CharacterTextSplitter(separator="\n\n", chunk_size=10, chunk_overlap=0)
