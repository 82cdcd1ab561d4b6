"""An engine with several drafters."""

import pytest

from rapid_integrations import ConfigurationError, RapidEngine, RemoteDrafter, SpeculationConfig
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import PROMPT, SHORT, SMALL
from tests.toys.models import byte_tokenizer, tiny_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = []
    for seed in range(3):
        made.append(tmp_path_factory.mktemp(f"model{seed}"))
        tiny_model("llama", seed).save_pretrained(made[-1])
        byte_tokenizer().save_pretrained(made[-1])
    return made


def opened(target, **options):
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SHORT, "dtype": "float32"}
    return RapidEngine.from_pretrained(target, **settings, **options)


def ask(engine, **options):
    return engine.generate(PROMPT, speculation=SpeculationConfig(law="augmented", eta=20.0, **options))


@pytest.fixture(scope="module")
def three(folders):
    with opened(folders[0], drafter=folders[1], more_drafters=(folders[2], folders[0])) as engine:
        yield engine


def test_the_answer_is_the_laws_own_whoever_proposes(three):
    expected = ask(three, proposer="none")
    for proposer in ("drafter", "hybrid", "retrieval_tree", "magicdec"):
        answer = ask(three, proposer=proposer, draft_length=3)
        assert answer.token_ids == expected.token_ids and answer.stats.proposer == proposer
    assert answer.stats.drafter == " + ".join((three.drafter.name, *(each.name for each in three.more_drafters)))
    assert three.more_drafters[1] is three.target and three.more_drafters[0] is not three.target


def test_weights_decide(three, folders):
    answers = {weights: ask(three, drafter_weights=weights).token_ids for weights in ((1, 1e-9, 1e-9), (1e-9, 1, 1e-9))}
    for (weights, answer), drafter in zip(answers.items(), folders[1:], strict=True):
        with opened(folders[0], drafter=drafter) as alone:
            assert answer == ask(alone).token_ids, weights
    assert len(set(answers.values())) == 2
    assert ask(three).token_ids == ask(three, drafter_weights=(2, 2, 2)).token_ids


def test_wrong_weights_are_refused(three):
    with pytest.raises(ConfigurationError, match="2 weights, and the engine has 3 drafters"):
        ask(three, drafter_weights=(1, 2))
    with pytest.raises(ConfigurationError, match="drafter_weights"):
        SpeculationConfig(drafter_weights=(1, 0))


def test_each_drafter_has_a_cache_of_its_own_and_a_fingerprint(three, folders):
    def cache_bytes(engine):
        ask(engine, proposer="none")
        return ask(engine, proposer="none").stats.cache_bytes

    with opened(folders[0], drafter=folders[1]) as one:
        assert cache_bytes(three) > 1.5 * cache_bytes(one)
    assert three.fingerprints().keys() == {"target", "drafter", "drafter 2"}


def test_a_remote_drafter_is_the_only_one(folders):
    with pytest.raises(ConfigurationError, match="the only one"):
        opened(folders[0], drafter=RemoteDrafter("http://127.0.0.1:9"), more_drafters=(folders[1],))
