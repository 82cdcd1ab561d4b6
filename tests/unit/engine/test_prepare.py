"""Whether a prompt has room is known before anything is retrieved for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from rapid_integrations.config import CompressionConfig, SamplingParams
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError, ContextOverflowError, PromptError
from rapid_integrations.models.loader import wrap
from rapid_integrations.prompt import Prompt
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import tiny
from tests.toys.models import byte_tokenizer, tiny_model, words

COMPRESSION = CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1)


class NeverAsked(HashEmbedder):
    def embed_documents(self, *arguments, **options):
        raise AssertionError("embedded a document that has no room")

    embed_query = embed_documents


def engine(embedder=None, model=None, tokenizer=None, **config):
    loaded = wrap(model or tiny_model("llama", 1, **config), tokenizer or byte_tokenizer())
    return RapidEngine(loaded, embedder=embedder or HashEmbedder(threshold=-1.0), compression=COMPRESSION)


@pytest.mark.parametrize("count", [400, 5_000])
def test_nothing_is_embedded_for_a_prompt_without_room(count):
    with engine(NeverAsked()) as running:
        prompt = Prompt.from_context(words(1, count), "where?")
        with pytest.raises(ContextOverflowError) as caught:
            running.generate(prompt)
        assert caught.value.prompt_tokens == running.count_tokens(prompt) > 2048
        assert "about" not in str(caught.value)


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none"])
def test_a_book_is_refused_at_once_and_the_next_request_works(proposer):
    """3.2 million characters: not all of it is counted."""
    from rapid_integrations.config import SpeculationConfig

    book = words(1, 20_000) + "\n"
    book *= 3_200_000 // len(book)
    with engine(NeverAsked()) as running:
        with pytest.raises(ContextOverflowError) as caught:
            running.generate(Prompt.from_context(book, "where?"), speculation=SpeculationConfig(proposer=proposer))
        assert "has about" in str(caught.value) and "by about" in str(caught.value)
        assert caught.value.prompt_tokens == pytest.approx(len(book), rel=0.01)  # a byte is a token
        assert running.generate("hello", sampling=SamplingParams(max_new_tokens=3)).usage.completion_tokens == 3


@pytest.mark.long
def test_a_text_whose_tokens_are_few_is_counted_to_its_end():
    """Its beginning alone would say that there is no room."""
    merges = [("a" * 2**n, "a" * 2**n) for n in range(10)]
    tokenizer = byte_tokenizer(merges=merges)
    with engine(tokenizer=tokenizer, vocab_size=len(tokenizer)) as running:
        text = words(1, 170) + "a" * 1_000_000
        answer = running.generate(text, sampling=SamplingParams(max_new_tokens=3))
        assert 1_700 < answer.usage.prompt_tokens < 2_045


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {"n_positions": 512}),
        ("gpt2", {"max_position_embeddings": 512}),
        ("gptj", {"n_positions": 512}),
        ("opt", {"max_position_embeddings": 512}),
        ("llama", {"max_position_embeddings": 512}),
        ("starcoder2", {"max_position_embeddings": 512}),
        ("ctrl", {"n_positions": 512}),
    ],
)
def test_the_window_comes_from_every_configurations_own_field(family, settings):
    chosen = settings | {"n_ctx": 512} if family == "gpt2" else settings
    with engine(model=tiny(family, **chosen), tokenizer=byte_tokenizer(chat_template=None)) as running:
        assert running.target.context_window == 512
        with pytest.raises(ContextOverflowError, match=r"holds 512 tokens.*has 409 .*104 more.*max_new_tokens <= 103"):
            running.generate("a" * 409, sampling=SamplingParams(max_new_tokens=104))
        full = running.generate("a" * 409, sampling=SamplingParams(max_new_tokens=103, temperature=0))
        assert full.usage.completion_tokens == 103 or full.finish_reason == "eos"


def test_a_table_of_positions_that_is_shorter_than_the_configuration_says_counts():
    model = tiny("gpt2", n_positions=512)
    model.config.n_positions = 4096
    assert wrap(model, byte_tokenizer()).lm.context_window == 512


def test_a_configuration_that_says_nothing_takes_the_tokenizers_word():
    model = tiny("llama")
    model.config.__dict__["max_position_embeddings"] = None
    assert wrap(model, byte_tokenizer()).lm.context_window == byte_tokenizer().model_max_length == 2048


def test_a_text_without_tokens_is_refused():
    tokenizer = byte_tokenizer(chat_template=None)
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("x", "")
    with engine(tokenizer=tokenizer) as running:
        with pytest.raises(PromptError, match="has no tokens"):
            running.generate("xxx")
        assert running.generate("yyy", sampling=SamplingParams(max_new_tokens=2)).token_ids


NAMES = " ".join(f"name{number} lives in town{number} ." for number in range(200))


def turns(*questions):
    first = Prompt(text=f"{NAMES}\n\n{questions[0]}", context_spans=((0, len(NAMES)),))
    messages = [{"role": "user", "content": first}]
    for question in questions[1:]:
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": question}]
    return messages


@pytest.mark.parametrize(
    ("question", "searched"),
    [
        ("And after that?", "Where does name7 live?\nAnd after that?"),
        ("Where does name150 live?", "Where does name150 live?"),
    ],
)
def test_a_follow_up_that_names_too_little_searches_with_the_question_before_it(question, searched):
    embedder = HashEmbedder(threshold=-1.0)
    model = tiny_model("llama", 1, max_position_embeddings=16_384)
    with engine(embedder, model) as running:
        running.explain(turns("Where does name7 live?", question))
    assert embedder.queries == [searched]


def test_a_reranker_orders_what_the_drafter_reads():
    def last_first(query, passages):
        return sorted((replace(passage, score=None) for passage in passages), key=lambda passage: -passage.chunk)

    model = wrap(tiny_model("llama", 1, max_position_embeddings=16_384), byte_tokenizer())
    with RapidEngine(model, embedder=HashEmbedder(), reranker=last_first, compression=COMPRESSION) as running:
        prepared = running.explain(Prompt.from_context(NAMES, "Where does name7 live?"))
    assert prepared.compression.source == "reranker"
    assert prepared.drafter.contexts[0].endswith(NAMES[-8:])  # the question names the beginning


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("sampling", {"temperature": 1.0}, "SamplingParams"),
        ("speculation", "prompt_lookup", "SpeculationConfig"),
        ("compression", 4096, "CompressionConfig"),
    ],
)
def test_settings_of_another_class_are_refused(name, given, wanted):
    with engine() as asked, pytest.raises(ConfigurationError, match=f"{name}=.* takes a {wanted}: give {wanted}"):
        asked.generate("words", **{name: given})


@pytest.mark.parametrize("prompt", [None, 5, Path("report.md"), {"role": "user", "content": "hello"}, b"hello"])
def test_what_is_no_prompt_is_refused(prompt):
    with engine() as asked, pytest.raises(PromptError, match="a prompt is a text, chat messages or a Prompt"):
        asked.generate(prompt)


@pytest.mark.parametrize("role", [None, 5])
def test_a_role_that_is_no_text_is_refused(role):
    with engine() as asked, pytest.raises(PromptError, match="needs a 'role'"):
        asked.generate([{"role": role, "content": "hello"}])
