"""The proposers "skipped_layers", "magicdec" and "triforce" in an engine."""

import pytest

from rapid_integrations import ConfigurationError, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import DOCUMENT, SMALL
from tests.toys.models import byte_tokenizer, tiny_model

NAMES = ("skipped_layers", "magicdec", "triforce")
PROMPT = Prompt.from_context(DOCUMENT, "which words?")


def deep(**options):
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SamplingParams(max_new_tokens=16)}
    return RapidEngine.from_pretrained(options.pop("folder"), dtype="float32", **settings, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("deep")
    tiny_model("llama", 5, num_hidden_layers=5).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def shared(folder):
    with deep(folder=folder) as made:
        yield made


def ask(own, proposer, law="target", sampling=None, **options):
    speculation = SpeculationConfig(law=law, proposer=proposer, **options)
    return own.generate(PROMPT, speculation=speculation, sampling=sampling)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_are_the_laws_own_and_nothing_more_is_prefilled(shared, name, law):
    ask(shared, "none", law)  # later prompts begin like this one
    expected = ask(shared, "none", law)
    answer = ask(shared, name, law, draft_length=4, draft_sinks=1, draft_recent=64)
    assert answer.token_ids == expected.token_ids and answer.stats.proposer == name
    assert (
        answer.stats.drafted_tokens > 0 and answer.usage.drafter_prompt_tokens == expected.usage.drafter_prompt_tokens
    )
    assert answer.stats.cache_bytes == expected.stats.cache_bytes
    assert ask(shared, name, law).token_ids == expected.token_ids  # the draft length by measured costs


@pytest.mark.parametrize("name", ["magicdec", "triforce"])
def test_passages_are_retrieved_to_choose_rows(shared, name):
    assert ask(shared, name).stats.retrieval == "embedder"
    assert ask(shared, name, draft_retrieved=False).stats.retrieval is None
    assert ask(shared, "skipped_layers").stats.retrieval is None


def test_with_all_layers_the_target_guesses_itself(shared):
    answer = ask(shared, "skipped_layers", draft_length=4, draft_skip_layers=())
    assert answer.stats.accepted_tokens == answer.stats.drafted_tokens > 0


def test_a_view_of_everything_is_always_right(shared):
    answer = ask(shared, "magicdec", draft_length=4, draft_recent=10_000)
    assert answer.stats.accepted_tokens == answer.stats.drafted_tokens > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_seeded_sample_repeats(shared, name):
    sampling = SamplingParams(max_new_tokens=16, temperature=1.0, seed=3)
    first, second = (ask(shared, name, sampling=sampling) for _ in range(2))
    assert first.token_ids == second.token_ids


def test_layers_that_do_not_exist_are_refused(shared):
    for layers in ((5,), (0, 1, 2, 3, 4)):
        with pytest.raises(ConfigurationError, match="has the layers 0 to 4, and at least one of them has to be left"):
            ask(shared, "skipped_layers", draft_skip_layers=layers)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_parts_copies(name):
    # Transformers' own forward runs a model that belongs to the caller.
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SamplingParams(max_new_tokens=12)}
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer(), **settings) as own:
        answer = ask(own, name)
        assert answer.stats.proposer == "prompt_lookup" and answer.token_ids == ask(own, "none").token_ids


def test_a_prompt_of_one_token_has_no_rows_to_draft_over(shared):
    for name in NAMES:
        answer = shared.generate("a", apply_chat_template=False, speculation=SpeculationConfig(proposer=name))
        assert answer.stats.tokens == answer.stats.rounds + answer.stats.accepted_tokens
