"""Hostile documents through the whole engine, and properties that hold for any text."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.compression import chunk_text
from rapid_integrations.compression.windows import Windows
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import render
from tests.hostile.texts import EXAMPLES, KINDS, SPECIAL, clean
from tests.toys.embedder import HashEmbedder
from tests.toys.models import EOS_ID, SPECIAL_TOKENS, byte_tokenizer, tiny_model

CONTROL = set(byte_tokenizer().convert_tokens_to_ids(list(SPECIAL_TOKENS)))
QUESTION = "where is the cat?"
MERGES = (("t", "h"), ("<", "|"), ("|", ">"), ("e", "n"))

any_text = st.lists(
    st.one_of(
        st.sampled_from(SPECIAL),
        st.text(max_size=8),
        st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "Mn", "Zs", "Zl", "So"]), max_size=8),
        st.builds(
            lambda unit, count: unit * count, st.sampled_from([" ", "\n", "a", "🙂", "-", "\0"]), st.integers(1, 80)
        ),
    ),
    min_size=1,
    max_size=12,
).map("".join)


@functools.cache
def engine():
    return RapidEngine.from_models(
        tiny_model("llama", 0, max_position_embeddings=16384),
        byte_tokenizer(),
        embedder=HashEmbedder(),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=256, min_chunks=1),
        prefix_cache_bytes=0,
    )


@functools.cache
def vocabulary(merges=()):
    return Vocabulary(byte_tokenizer(merges=merges), [EOS_ID])


def control_tokens(ids):
    return [index for index in ids if index in CONTROL]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_answered_and_stays_data(kind):
    document = KINDS[kind](3000)
    prompt = Prompt.from_context(document, QUESTION)
    read = engine().explain(prompt)
    harmless = engine().explain(Prompt.from_context("the cat sat on a mat", QUESTION))
    for ids in (read.target_ids, read.drafter_ids):
        assert control_tokens(ids) == control_tokens(harmless.target_ids)
    assert clean(document) in engine().vocabulary.decode(read.target_ids)
    answer = engine().generate(
        prompt,
        sampling=SamplingParams(max_new_tokens=4),
        speculation=SpeculationConfig(law="augmented", proposer="hybrid"),
    )
    assert answer.finish_reason in ("eos", "length")
    for chunk in answer.retrieved:
        assert document[chunk.start : chunk.end] == chunk.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_stays_data(kind):
    question = KINDS[kind](300)
    if not question.strip():
        return
    read = engine().explain(Prompt.from_context("the cat sat on a mat " * 50, question))
    plain = engine().explain(Prompt.from_context("the cat sat on a mat " * 50, QUESTION))
    assert control_tokens(read.target_ids) == control_tokens(plain.target_ids)


@pytest.mark.parametrize("merges", [(), MERGES], ids=["bytes", "merges"])
@settings(max_examples=EXAMPLES)
@given(document=any_text, system=any_text, question=any_text)
def test_only_the_template_writes_control_tokens(merges, document, system, question):
    mine = vocabulary(merges)
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": document},
        {"role": "user", "content": question},
    ]
    if not (document + system + question).strip():
        return
    ids = mine.encode_prompt(render(messages, mine.chat_template))
    frame = mine.encode_prompt(render([{**message, "content": "x"} for message in messages], mine.chat_template))
    assert control_tokens(ids) == control_tokens(frame)
    expected = "".join(f"{message['role']}\n{clean(message['content'])}\n" for message in messages) + "assistant\n"
    assert mine.decode(ids) == expected


@pytest.mark.parametrize("limit", [1, 7, 64])
@settings(max_examples=EXAMPLES)
@given(text=any_text)
def test_chunks_and_windows_tile_any_text(limit, text):
    mine = vocabulary()
    chunks = chunk_text(text, mine, limit)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(chunk.tokens <= limit or len(chunk.text) == 1 for chunk in chunks)
    windows = Windows(mine._backend, limit)
    pieces = windows.split(text)
    assert "".join(pieces) == text
    assert all(len(windows.offsets(piece)) <= limit or len(piece) == 1 for piece in pieces)


@settings(max_examples=EXAMPLES)
@given(documents=st.lists(any_text.filter(str.strip), min_size=1, max_size=4), question=any_text.filter(str.strip))
def test_spans_are_the_documents_whatever_they_hold(documents, question):
    prompt = Prompt.from_context(documents, question)
    assert [prompt.text[start:end] for start, end in prompt.context_spans] == documents
    assert prompt.query == question
    rendered = render(prompt, vocabulary().chat_template)
    # A template may strip what it is given; the spans then lie on what is left.
    assert [text.strip() for text in rendered.contexts] == [text.strip() for text in documents]
    shorter = rendered.splice(["cut"] * len(documents))
    assert len(shorter.text) == len(rendered.text) - sum(map(len, rendered.contexts)) + 3 * len(documents)


@settings(max_examples=EXAMPLES)
@given(document=any_text)
def test_any_document_is_encoded_without_loss(document):
    mine = vocabulary(MERGES)
    assert mine.decode(mine.encode(document)) == clean(document)
    assert not control_tokens(mine.encode(document))
