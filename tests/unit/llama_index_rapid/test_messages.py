"""Messages of several parts, as LlamaIndex itself reads them; what is no text is refused and never dropped."""

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms import ChatMessage

from llama_index_rapid.messages import to_engine_messages
from rapid_integrations import PromptError
from tests.toys.chat_templates import QWEN25
from tests.toys.llama_index_llms import make_llm

PICTURE = ImageBlock(url="https://example.com/picture.png")


def says(*blocks, role="user", **extra):
    return ChatMessage(role=role, blocks=list(blocks), additional_kwargs=extra)


@pytest.fixture(scope="module")
def written():
    return make_llm(messages_to_prompt=lambda messages: "\n".join(str(message.content) for message in messages))


def test_parts_are_joined_as_llama_index_joins_them(llm, base_llm, written, given):
    message = says(TextBlock(text="First part."), TextBlock(text="Second part."))
    assert message.content == "First part.\nSecond part."
    for used in (llm, base_llm, written):
        used.chat([message])
        assert "First part.\nSecond part." in given[-1].target.text


def test_a_citable_document_is_read_with_its_title(llm, base_llm, written, given):
    paper = CitableBlock(title="Report", source="report.pdf", content="Profits rose.")
    for used in (llm, base_llm, written):
        used.chat([says(paper, TextBlock(text="Why?"))])
        assert "Report\nProfits rose.\nWhy?" in given[-1].target.text


def test_what_says_nothing_is_left_out(llm, given):
    citation = CitationBlock(
        cited_content="Profits rose.", source="report.pdf", title="Report", additional_location_info={}
    )
    thought = ThinkingBlock(content="hidden")
    cache = CachePoint(cache_control={"type": "ephemeral"})
    answer = says(thought, TextBlock(text="So."), citation, cache, role="assistant")
    llm.chat([says(TextBlock(text="Why?")), answer, says(TextBlock(text="Oh?"))])
    assert "So.<|im_end|>" in given[-1].target.text and "hidden" not in given[-1].target.text


@pytest.mark.parametrize(
    "block",
    [
        PICTURE,
        AudioBlock(url="https://example.com/a.mp3"),
        VideoBlock(url="https://example.com/a.mp4"),
        DocumentBlock(url="https://example.com/a.pdf"),
        CitableBlock(title="t", source="s", content=[PICTURE]),
    ],
    ids=lambda block: type(block).__name__,
)
async def test_what_is_no_text_is_refused_by_every_kind_of_model(llm, base_llm, written, block):
    kind = "ImageBlock" if isinstance(block, CitableBlock) else type(block).__name__
    for used in (llm, base_llm, written):
        with pytest.raises(PromptError, match=f"{kind}, but the target reads text only"):
            used.chat([says(TextBlock(text="What is this?"), block)])
        with pytest.raises(PromptError, match=kind):
            await used.achat([says(block)])


def test_calls_that_another_class_has_kept_beside_the_message(given):
    llm = make_llm(chat_template=QWEN25)
    openai = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"left": 1}'}}
    as_block = says(ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"left": 1}), role="assistant")
    beside = says(role="assistant", tool_calls=[openai])
    both = says(*as_block.blocks, role="assistant", tool_calls=[openai])
    texts = set()
    for message in (as_block, beside, both):
        llm.chat([says(TextBlock(text="Add.")), message, says(TextBlock(text="2"), role="tool", tool_call_id="1")])
        texts.add(given[-1].target.text)
    assert len(texts) == 1 and '{"name": "add", "arguments": {"left": 1}}' in texts.pop()
    with pytest.raises(PromptError, match="a call without a name"):
        to_engine_messages([says(role="assistant", tool_calls=[{"id": "1"}])])


def test_a_context_is_known_in_a_conversation_that_is_written_as_text(written, given):
    from llama_index.core import PromptTemplate

    from tests.toys.llama_index_parts import DOCUMENT

    template = PromptTemplate("{context_str}\n{query_str}")
    written.predict(template, context_str=DOCUMENT, query_str="What is said of Section 7?")
    assert given[-1].target.contexts == (DOCUMENT,) and given[-1].target.query == "What is said of Section 7?"
    assert "rapid" not in given[-1].target.text
