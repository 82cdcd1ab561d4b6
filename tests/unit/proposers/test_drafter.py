"""A third model that only proposes, and copies mixed with drafts: the answer is the same, the way to it is not."""

import pytest

from rapid_integrations import (
    CompressionConfig,
    ConfigurationError,
    Prompt,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
    VocabularyMismatchError,
)
from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.decoding.draft_length import AdaptiveDraftLength, CostModel, RoundTimes
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.proposal import Proposal
from rapid_integrations.decoding.tree_shape import FixedShape
from rapid_integrations.models.loader import wrap
from rapid_integrations.proposers.hybrid import Hybrid, TreeHybrid
from rapid_integrations.proposers.prompt_lookup import PromptLookup
from rapid_integrations.proposers.retrieval_tree import IndexedSource, RetrievalTree
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_model
from tests.toys.models import SHALLOW, byte_tokenizer, tiny_model, words

PROMPT = Prompt.from_context(words(1, 80), "which words?")


def engine(**models):
    tokenizer = byte_tokenizer()
    return RapidEngine(
        light_model(),
        **{name: wrap(model, tokenizer, take_over=True) for name, model in models.items()},
        embedder=HashEmbedder(threshold=-1.0),
        compression=CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1),
    )


@pytest.fixture(scope="module")
def upward():
    """A larger drafter, and a small model that proposes."""
    return engine(drafter=tiny_model("llama", 1), draft_lm=tiny_model("llama", 5, **SHALLOW))


def ask(running, proposer, law="augmented", length=3, **sampling):
    return running.generate(
        PROMPT,
        sampling=SamplingParams(max_new_tokens=24, **sampling),
        speculation=SpeculationConfig(proposer=proposer, law=law, draft_length=length, eta=20.0),
    )


@pytest.mark.long
def test_the_statistics_name_the_model_that_proposed(upward):
    named = {name: ask(upward, name).stats.draft_lm for name in ("none", "drafter", "draft_lm", "hybrid")}
    name = upward.draft_lm.name
    assert named == {"none": None, "drafter": None, "draft_lm": name, "hybrid": name}


@pytest.mark.in_turn(2)
@pytest.mark.long
@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize("length", [1, 5, "auto"])
def test_greedy_answers_are_the_same_whoever_proposes(upward, law, length):
    answers = {ask(upward, name, law, length).token_ids for name in ("none", "drafter", "draft_lm", "hybrid")}
    assert len(answers) == 1


def test_the_drafter_reads_a_proposal_at_once(upward, monkeypatch):
    passes = []
    forward = type(upward.drafter).forward

    def counting(self, rows):
        if self is upward.drafter and rows[0].keep:
            passes.append(rows[0].count)
        return forward(self, rows)

    monkeypatch.setattr(type(upward.drafter), "forward", counting)
    answer = ask(upward, "draft_lm")
    assert answer.stats.proposer == "draft_lm" and answer.stats.drafted_tokens > answer.stats.rounds
    assert len(passes) == answer.stats.rounds


@pytest.mark.long
def test_its_cache_is_reused_and_counted(upward):
    first, second = ask(upward, "draft_lm"), ask(upward, "draft_lm")
    assert second.text == first.text and second.stats.cached_prompt_tokens > 0
    assert first.stats.cache_bytes > ask(upward, "drafter").stats.cache_bytes


def test_without_a_drafter_in_the_law_only_two_models_read(upward):
    assert ask(upward, "draft_lm", "target").stats.score_s == 0


def test_the_target_may_propose_for_a_larger_drafter():
    running = engine(drafter=tiny_model("llama", 1))
    running.draft_lm = running.target
    expected = ask(running, "none").token_ids
    assert ask(running, "draft_lm").token_ids == expected == ask(running, "hybrid").token_ids


def test_it_must_be_there(upward):
    with pytest.raises(ConfigurationError, match=r"needs a model that proposes: give the engine draft_lm="):
        ask(engine(), "draft_lm")


def test_its_vocabulary_must_be_the_targets():
    tokenizer = byte_tokenizer()
    other = wrap(tiny_model("llama", 1, vocab_size=300), byte_tokenizer(merges=[("a", "b")]))
    with pytest.raises(VocabularyMismatchError):
        RapidEngine(wrap(tiny_model("llama", 0), tokenizer), draft_lm=other)


def test_seeded_samples_do_not_depend_on_time(upward):
    texts = {ask(upward, "hybrid", length="auto", temperature=1.0, seed=3).text for _ in range(3)}
    assert len(texts) == 1


class Model:
    def __init__(self):
        self.committed = []

    def draft(self, tokens, rng, source):
        yield from ()  # as if it had read something
        return Proposal((7,) * tokens, source=source)

    def commit(self, token_ids):
        self.committed += token_ids


class TestTreeHybrid:
    """What it prefers, over a text in which 4 follows (2, 3) and (1, 2, 3)."""

    @pytest.fixture(params=[(0.6, True), (2.0, False)], ids=["drafts pay", "drafts do not pay"])
    def case(self, request):
        propose, pays = request.param
        drafted = AdaptiveDraftLength(8, CostModel(propose, 0, 1, 0.05))
        assert (drafted.next() > 0) == pays
        source = IndexedSource(SuffixIndex.build(list(range(1, 20))))
        tree = RetrievalTree([source], GrowingText(), [1, 2, 3], frozenset(), FixedShape(3))
        return TreeHybrid(tree, Model(), "drafter", drafted), pays

    def test_three_tokens_that_match_are_enough(self, case):
        hybrid, _ = case
        assert run_alone(hybrid.propose(50, None)).token_ids == (4, 5, 6)

    def test_behind_two_the_model_drafts_if_it_pays(self, case):
        hybrid, pays = case
        hybrid.commit([9, 2, 3])
        assert run_alone(hybrid.propose(50, None)).source == ("drafter" if pays else "retrieval_tree")

    def test_behind_nothing_too(self, case):
        hybrid, pays = case
        hybrid.commit([9, 9, 9])
        proposal = run_alone(hybrid.propose(50, None))
        assert proposal.source == "drafter" and bool(proposal.token_ids) == pays


class TestHybridLearnsBothLengths:
    @pytest.fixture
    def lengths(self):
        return [AdaptiveDraftLength(8, CostModel(propose, 0, 1, 0.05)) for propose in (0.0, 0.6)]

    @pytest.fixture
    def hybrid(self, lengths):
        copied, drafted = lengths
        lookup = PromptLookup([list(range(1, 20))], [1, 2, 3], frozenset(), copied, min_ngram=3)
        return Hybrid(lookup, Model(), "drafter", drafted)

    def test_copies_are_longer_than_drafts(self, hybrid, lengths):
        copied, drafted = (length.next() for length in lengths)
        assert run_alone(hybrid.propose(50, None)).token_ids == tuple(range(4, 4 + copied)) and copied > drafted
        assert run_alone(hybrid.propose(2, None)).token_ids == (4, 5)

    def test_a_copy_needs_three_tokens(self, hybrid, lengths):
        hybrid.commit([9, 2, 3])
        assert run_alone(hybrid.propose(50, None)) == Proposal((7,) * lengths[1].next(), source="drafter")

    def test_copies_that_are_never_right_are_given_up(self, hybrid, lengths):
        copied, drafted = lengths
        for _ in range(200):
            proposal = run_alone(hybrid.propose(50, None))
            if proposal.source != "prompt_lookup":
                break
            hybrid.observe(RoundTimes(len(proposal.token_ids), 0, 0.0, 0.0, 1.0))
        assert proposal == Proposal((7,) * drafted.next(), source="drafter") and copied.acceptance < 0.1

    def test_a_round_teaches_the_kind_that_it_was_of(self, hybrid, lengths):
        copied, drafted = lengths
        before = drafted.acceptance
        run_alone(hybrid.propose(50, None))
        hybrid.observe(RoundTimes(4, 0, 0.0, 0.0, 1.0))
        assert copied.acceptance < 0.75 and drafted.acceptance == pytest.approx(before)
        hybrid.commit([9, 9, 9])
        run_alone(hybrid.propose(50, None))
        hybrid.observe(RoundTimes(4, 0, 0.1, 0.0, 1.0))
        assert drafted.acceptance < before

    def test_a_round_without_a_draft_tells_both_what_a_pass_takes(self, hybrid, lengths):
        copied, drafted = lengths
        hybrid.commit([9, 9, 9])
        run_alone(hybrid.propose(0, None))
        hybrid.observe(RoundTimes(0, 0, 0.0, 0.0, 7.0))
        assert copied._verify.measured and drafted._verify.measured

    def test_both_parts_keep_up_with_the_text(self, hybrid):
        lookup, model = hybrid.parts
        hybrid.commit([5, 6])
        assert model.committed == [5, 6] and isinstance(lookup, PromptLookup)
