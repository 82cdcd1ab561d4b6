"""The drafter's own answer, which comes while the target still reads."""

import pytest

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model, words

SHORT = SamplingParams(max_new_tokens=8)
PROMPT = Prompt.from_context(words(1, 500), "which words?")


def engine(**options):
    drafter = tiny_model("llama", 1, max_position_embeddings=8192)
    settings = {
        "embedder": HashEmbedder(),
        "compression": CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        "sampling": SHORT,
        "drafter_model": drafter,
        **options,
    }
    return RapidEngine.from_models(tiny_model("llama", 0, max_position_embeddings=8192), byte_tokenizer(), **settings)


@pytest.fixture
def made():
    with engine() as found:
        yield found


def test_it_is_what_the_drafter_alone_writes_behind_its_own_prompt(made):
    stream = made.stream(PROMPT)
    guess = "".join(chunk.text for chunk in made.drafter_stream(stream.prepared))
    stream.close()
    passages = Prompt.from_context(stream.prepared.compression.texts, "which words?")
    alone = made.alone(made.drafter)
    assert alone.explain(passages).target_ids == stream.prepared.drafter_ids
    plain = SpeculationConfig(law="target", proposer="none")
    assert guess == alone.generate(passages, speculation=plain).text != ""


def test_the_answer_is_the_same_beside_it(made):
    expected = made.generate(PROMPT).text
    made.clear_prefix_cache()
    stream = made.stream(PROMPT)
    guess = made.drafter_stream(stream.prepared)
    next(guess)
    assert "".join(chunk.text for chunk in stream) == expected
    guess.close()


def test_it_begins_before_a_long_prompt_has_been_read(made):
    reports = []
    stream = made.stream(PROMPT, on_progress=lambda stage, done, total: reports.append((stage, done, total)))
    guess = made.drafter_stream(stream.prepared)
    next(guess)  # comes although nobody has asked for the answer yet
    assert not [report for report in reports if report[0] == "prefill target"]
    guess.close()
    stream.close()


@pytest.mark.parametrize(
    "prompt",
    [Prompt.from_context(words(1, 20), "which words?"), "no context", "x" * 2000],
    ids=["short", "none", "plain"],
)
def test_there_is_none_where_it_would_not_come_sooner(made, prompt):
    stream = made.stream(prompt)
    assert made.drafter_stream(stream.prepared) is None
    stream.close()


def test_there_is_none_for_a_document_that_has_been_read(made):
    made.generate(PROMPT)
    stream = made.stream(PROMPT)
    assert made.drafter_stream(stream.prepared) is None
    stream.close()


def test_there_is_none_where_the_request_would_wait_for_its_memory():
    with engine() as made:
        stream = made.stream(PROMPT)
        made._worker.admission.nbytes = made.target.kv_bytes_per_token * (len(stream.prepared.target_ids) + 100)
        assert made.drafter_stream(stream.prepared) is None
        stream.close()
