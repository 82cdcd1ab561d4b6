"""Classification of a prompt template's variables as documents, question, or neither.

LlamaIndex's own prompts, and most of its users' prompts, use the same names: `context_str` of a query engine,
`context_messages` of a reranker, `text` of an extractor. Everything else in a template is an instruction, a format, or
a text that must not be compressed (an answer so far, a database's schema, the choices of a selector). Both models read
it whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.default_prompts import HYDE_TMPL
from llama_index.core.prompts.prompt_type import PromptType
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore

from rapid_integrations.adapters.variable_names import INSTRUCTIONS, words_of
from rapid_integrations.prompt.segmentation import MAX_QUERY_CHARACTERS, MIN_CONTEXT_CHARACTERS

DOCUMENTS = frozenset(
    "context_str context_msg context_messages context contexts reference_contexts text texts document documents docs "
    "document_text passage passages chunk chunks node nodes source sources article transcript content sql_response_str "
    "kg_response_str json_path_value query_engine_response_str retrieved_context retrieved_documents retrieved_chunks "
    "search_results".split()
)
# Documents that are given to work on. The other names are those of what a retriever found.
_GIVEN = frozenset("text texts document document_text article transcript content".split())
QUESTIONS = (
    "query_str",
    "query",
    "question",
    "user_query",
    "user_question",
    "user_input",
    "user_message",
    "input",
    "query_bundle",
    "orig_query_str",
    "new_chunk_text",  # in a tree index: the text to insert
)
WHOLE = frozenset(
    "existing_answer existing_facts answer answers answer_1 answer_2 second_answer response generated_answer "
    "reference reference_answer lookahead_response prev_response prev_reasoning query_answer_pairs feedback guidelines "
    "schema schema_str info_str json_schema table_schema table_name sql_query sql_query_str kg_query_str json_path "
    "query_engine_query_str dialect context_list num_chunks num_choices num num_questions max_outputs max_keywords "
    "max_facts max_knowledge_triplets max_triplets_per_chunk branching_factor keywords allowed_entity_types "
    "allowed_relation_types allowed_entity_properties allowed_relation_properties chat_history history memory_blocks "
    "messages tools tools_str tool_desc tool_names instructions instruction format_instructions output_format format "
    "examples system_prompt persona image_width num_queries class_name".split()
)


def is_question_written_as_context(template: BasePromptTemplate) -> bool:
    """Return whether the template's `context_str` is the question, as in HyDE, where the model writes a passage."""
    return getattr(template, "template", None) == HYDE_TMPL


@dataclass(frozen=True)
class Roles:
    """The roles of a template's variables.

    Attributes:
        documents: names of the variables with the documents.
        question: name of the variable with the question; None without one.
        whole: names of the variables that both models read whole.
        documents_by_name: whether the documents' names say that they are documents; if not, it is the only long value.
    """

    documents: tuple[str, ...] = ()
    question: str | None = None
    whole: tuple[str, ...] = ()
    documents_by_name: bool = True


def roles_of(template: BasePromptTemplate, values: Mapping[str, Any]) -> Roles:
    """Return the roles of a template's variables.

    A variable with an unknown name is the document if it is the only one with a long text. It is the question if there
    is a document and it is the only other one with a text of question length.
    """
    shown = _shown(template, values)
    given = {name: value for name, value in values.items() if name in shown and texts_of(value)}
    if is_question_written_as_context(template):
        asked = "context_str" if "context_str" in given else None
        return Roles(question=asked, whole=() if asked is None else (asked,))
    documents = [name for name in given if name in DOCUMENTS]
    question = next((name for name in QUESTIONS if name in given), None)
    unknown = {
        name: value
        for name, value in given.items()
        if name not in DOCUMENTS and not _is_read_whole(name) and name not in QUESTIONS and isinstance(value, str)
    }
    by_name = bool(documents)
    if not documents:
        long = [name for name, value in unknown.items() if len(value) >= MIN_CONTEXT_CHARACTERS]
        documents = long if len(long) == 1 else []
    if question is None and documents:
        asking = [name for name, value in unknown.items() if name not in documents and _may_ask(value)]
        question = asking[0] if len(asking) == 1 else None
    return Roles(tuple(documents), question, tuple(name for name in shown if _is_read_whole(name)), by_name)


def is_asked_by_name(roles: Roles) -> bool:
    """Whether a variable's name says that it is the question."""
    return roles.question in QUESTIONS


def is_given(template: BasePromptTemplate, roles: Roles) -> bool:
    """Whether the documents are given to work on, rather than found by a retriever or cut by LlamaIndex's indices."""
    if getattr(template.metadata.get("prompt_type"), "value", PromptType.CUSTOM) != PromptType.CUSTOM:
        return False
    return not roles.documents_by_name or all(name in _GIVEN for name in roles.documents)


def _is_read_whole(name: str) -> bool:
    return name in WHOLE or bool(words_of(name) & INSTRUCTIONS and name not in DOCUMENTS)


def _may_ask(value: str) -> bool:
    """Return whether a value could be a question, which is longer than a name and shorter than a document."""
    return len(value.split()) >= 3 and len(value) <= MAX_QUERY_CHARACTERS


def texts_of(value: Any) -> list[str]:
    """Return the texts in a variable's value, which is a text, a message, a node, or a collection of these."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, ChatMessage):
        return [block.text for block in value.blocks if isinstance(block, TextBlock)]
    if isinstance(value, NodeWithScore):
        return texts_of(value.node)
    if isinstance(value, BaseNode):
        return [value.get_content(MetadataMode.NONE)]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in texts_of(each)]
    if isinstance(value, Iterable) and isinstance(value, Collection):
        return [text for each in value for text in texts_of(each)]
    return []


def _shown(template: BasePromptTemplate, values: Mapping[str, Any]) -> set[str]:
    """Return which variables the template prints, by the names that the pipeline gives them."""
    names = set(template.template_vars or ())
    mapped = template.template_var_mappings or {}
    return {name for name in values if mapped.get(name, name) in names} if names else set(values)
