"""Ready strings through the engine: the exact texts that both models read."""

import functools

import pytest

from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model
from tests.unit.prompt.segmentation.documents import document
from tests.unit.prompt.segmentation.layouts import LAYOUTS

ASKED = "What did Keller write about the quarry?"
NAMES = (
    "en agentic rag",
    "en hub rag-prompt",
    "en citation",
    "en anthropic",
    "zh brackets",
    "en llama 3 tokens",
    "de question first",
)


@functools.cache
def engine():
    return RapidEngine.from_models(
        tiny_model("llama", 0, max_position_embeddings=16384),
        byte_tokenizer(),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=300, min_tokens=900, min_chunks=1),
        prefix_cache_bytes=0,
    )


@pytest.mark.parametrize("apply", [None, False], ids=["chat template", "as it is"])
@pytest.mark.parametrize("name", NAMES)
def test_the_drafter_reads_the_instructions_the_question_and_labelled_passages(name, apply):
    text = document("sources", 8, 6000)
    before, after = (part.replace("{question}", ASKED) for part in LAYOUTS[name].split("{context}"))
    prepared = engine().explain(before + text + after, apply_chat_template=apply)
    assert prepared.target.query == ASKED and (before + text + after).strip() in prepared.target.text
    read = prepared.drafter.text
    (context,) = prepared.drafter.contexts
    assert len(context) < len(text) / 2 and read.count(ASKED) == prepared.target.text.count(ASKED)
    assert before.lstrip() in read and after.strip() in read
    for passage in context.strip().split("\n\n"):
        label, _, said = passage.partition("\n")
        assert label.startswith("Source ") and f"{label}\n" in text and said.strip()
        assert said.strip() in text[text.index(f"{label}\n") :].split("\n\nSource")[0]


def test_an_answer():
    text = LAYOUTS["en agentic rag"].replace("{context}", document("prose", 8)).replace("{question}", ASKED)
    answer = engine().generate(text, sampling=SamplingParams(max_new_tokens=3))
    assert answer.stats.segmentation == "delimiters" and answer.retrieved
