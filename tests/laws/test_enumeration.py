"""The claim of the decoding loop: whatever the proposer and the draft length, the output follows the law.

The real loop runs on table models, and every outcome of every random decision is walked. The joint distribution of
whole outputs is compared with the product of the laws at each position, recomputed from the texts without any cache.
"""

import itertools
from dataclasses import replace

import pytest
import torch

from rapid_integrations.decoding.draft_length import AdaptiveDraftLength, CostModel, FixedDraftLength, RoundTimes
from rapid_integrations.decoding.proposal import Proposal
from rapid_integrations.proposers.suite.every_outcome import enumerate_outcomes
from rapid_integrations.proposers.suite.table_model import SharedTableLM, TableLM
from rapid_integrations.sampling import Law, Randomness
from tests.toys.distributions import largest_difference, total_variation
from tests.toys.enumerated_requests import (
    AUGMENTED_LAW,
    SETTINGS,
    TARGET_LAW,
    TOLERANCE,
    Oracle,
    ScriptedDraftLength,
    Stubborn,
    deviation,
    near,
    outcomes,
    request,
)
from tests.toys.ops import name_of, processor_ops
from tests.toys.requests import ToyRequest, read

GUESSES = [
    ("none", 1),
    ("drafter", 1),
    ("drafter", 2),
    ("prompt_lookup", 1),
    ("prompt_lookup", 2),
    ("prompt_lookup", 3),
    ("draft_lm", 1),
    ("draft_lm", 2),
    ("hybrid", 1),
    ("hybrid", 2),
]


@pytest.mark.in_turn(4)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(str(value) for value in settings.values()))
@pytest.mark.parametrize(("proposer", "length"), GUESSES)
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_the_output_follows_the_law(kind, proposer, length, settings):
    # A round never drafts the last token that is wanted, so K tokens of draft need K + 1 of output.
    tokens = max(3, length + 1)
    toy = request(kind, settings, proposer=proposer, draft_length=length, max_new_tokens=tokens)
    assert deviation(toy) < TOLERANCE


@pytest.mark.pairs
@pytest.mark.parametrize("ops", processor_ops(), ids=name_of)
@pytest.mark.parametrize("settings", SETTINGS[:4], ids=str)
@pytest.mark.parametrize(("proposer", "length"), [("drafter", 2), ("prompt_lookup", 2)])
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_the_output_follows_the_law_whoever_computes_it(kind, proposer, length, settings, ops):
    toy = request(kind, {**settings, "ops": ops}, proposer=proposer, draft_length=length)
    assert deviation(toy) < TOLERANCE


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(("proposer", "length"), [("none", 1), ("drafter", 2), ("prompt_lookup", 2), ("hybrid", 2)])
@pytest.mark.parametrize(
    "settings",
    [
        {"eta": "auto", "tail_rule": "mask"},
        {"eta": "auto", "tail_rule": "restore", "relevance": 0.6},
        {"eta": "auto", "tail_rule": "mask", "trust": 0.6},
        {"eta": "auto", "tail_rule": "mask", "temperature": 0.7, "top_p": 0.8, "relevance": 0.3},
    ],
    ids=str,
)
def test_a_strength_that_follows_both_distributions_is_still_a_law(settings, proposer, length):
    law = Law("augmented", **{"temperature": 1.0} | settings)
    toy = ToyRequest(law, proposer, length, repetition_penalty=1.2, eos=frozenset({1}))
    assert deviation(toy) < TOLERANCE
    # The strength differs from one prefix to the next: no constant one has the same law.
    for eta in (0.0, 1.0, 2.0, 5.0):
        assert total_variation(toy.expected(), toy.expected(replace(law, eta=eta))) > 1e-3


@pytest.mark.once
@pytest.mark.parametrize("settings", SETTINGS[:3], ids=str)
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_a_hybrid_over_a_model_that_only_proposes(kind, settings):
    toy = request(kind, settings, proposer="hybrid", draft_length=2, draft_lm=TableLM(3, 3), max_new_tokens=3)
    assert deviation(toy) < TOLERANCE


@pytest.mark.in_turn(4)
@pytest.mark.parametrize(
    "penalties",
    [
        pytest.param({"frequency_penalty": 1.1}, marks=pytest.mark.slow),
        pytest.param({"presence_penalty": 1.3}, marks=pytest.mark.slow),
        {"frequency_penalty": -0.7, "presence_penalty": 2.0},
        {"frequency_penalty": 2.0, "presence_penalty": -2.0, "repetition_penalty": 1.4},
    ],
    ids=lambda penalties: "-".join(str(value) for value in penalties.values()),
)
@pytest.mark.parametrize(
    ("proposer", "length"),
    [
        ("none", 1),
        ("drafter", 2),
        pytest.param("drafter", 3, marks=pytest.mark.slow),
        ("prompt_lookup", 3),
        ("hybrid", 2),
    ],
)
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_penalties_of_what_was_written(kind, proposer, length, penalties):
    # Four tokens of three kinds: at least one is written twice, within a draft, too.
    law = Law(kind, temperature=1.0, eta=5.0, top_p=0.95)
    toy = ToyRequest(law, proposer, length, max_new_tokens=4, **penalties)
    assert deviation(toy) < TOLERANCE
    plain = ToyRequest(law, "none", 1, max_new_tokens=4)
    assert total_variation(toy.expected(), plain.expected()) > 0.1


@pytest.mark.in_turn(4)
@pytest.mark.parametrize("least", [1, pytest.param(2, marks=pytest.mark.slow), 3, 4])
@pytest.mark.parametrize(
    ("proposer", "length"),
    [("none", 1), ("drafter", 2), ("prompt_lookup", 3), ("hybrid", 2), ("draft_lm", 2), ("tree_hybrid", 3)],
)
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_no_end_before_the_least_length(kind, proposer, length, least):
    # Prompt and drafts hold the token that ends, so that it is proposed where it is impossible.
    law = Law(kind, temperature=1.0, eta=5.0, top_p=0.95)
    toy = ToyRequest(law, proposer, length, max_new_tokens=4, eos=frozenset({1}), min_new_tokens=least)
    assert deviation(toy) < TOLERANCE
    assert min(map(len, toy.expected())) == least + (least < 4)
    free = ToyRequest(law, "none", 1, max_new_tokens=4, eos=frozenset({1}))
    assert total_variation(toy.expected(), free.expected()) > 0.1


@pytest.mark.parametrize(
    ("kind", "settings"), [("target", SETTINGS[2]), ("target", SETTINGS[4]), ("augmented", SETTINGS[3])]
)
def test_three_tokens_of_the_drafter(kind, settings):
    toy = request(kind, settings, proposer="drafter", draft_length=3, max_new_tokens=4)
    assert deviation(toy) < TOLERANCE


@pytest.mark.once
@pytest.mark.parametrize("kind", ["target", "augmented"])
@pytest.mark.parametrize("cut", [{"top_k": 2}, {"min_p": 0.3}, {"top_k": 3, "top_p": 0.9, "min_p": 0.1}], ids=str)
def test_other_truncations_in_a_wider_vocabulary(kind, cut):
    for proposer, tail_alpha in (("drafter", 0.5), ("prompt_lookup", 0.0)):
        toy = ToyRequest(
            Law(kind, temperature=0.7, eta=5.0, tail_rule="restore", tail_alpha=tail_alpha, **cut),
            proposer,
            repetition_penalty=1.3,
            eos=frozenset({4}),
            target=TableLM(5, 5),
            drafter=TableLM(6, 5),
            vocab_size=5,
        )
        assert deviation(toy) < TOLERANCE


def test_drafter_and_target_may_differ_in_their_prompt_only():
    # Self-speculation: one model, two texts, two caches.
    model = TableLM(7, 3)
    toy = ToyRequest(AUGMENTED_LAW, target=model, drafter=model)
    assert deviation(toy) < TOLERANCE
    assert total_variation(outcomes(toy), toy.expected(TARGET_LAW)) > 0.01  # the drafter's prompt matters


@pytest.mark.parametrize(
    "law",
    [
        TARGET_LAW,
        Law("target", temperature=0.7, top_p=0.8),
        # Here p_hat and q differ in the last bit, and every rejection, however improbable, is walked.
        AUGMENTED_LAW,
    ],
    ids=repr,
)
def test_a_drafter_that_is_the_target_is_always_right(law):
    model = TableLM(7, 3)
    toy = ToyRequest(law, target=model, drafter=model, drafter_prompt=ToyRequest.target_prompt)
    assert deviation(toy) < TOLERANCE


@pytest.mark.parametrize("law", [TARGET_LAW, AUGMENTED_LAW], ids=lambda law: law.kind)
def test_the_enumeration_meets_what_it_is_meant_to_test(law):
    met: set[tuple[int, int]] = set()

    class Observed(FixedDraftLength):
        def observe(self, costs: RoundTimes) -> None:
            met.add((costs.drafted, costs.accepted))

    outcomes(ToyRequest(law, "drafter", lambda: Observed(2)))
    assert met == {(2, 0), (2, 1), (2, 2), (1, 0), (1, 1), (0, 0)}
    met.clear()
    outcomes(ToyRequest(law, "prompt_lookup", lambda: Observed(2)))
    assert met >= {(2, 0), (2, 1), (2, 2), (0, 0)}


def test_the_laws_themselves_differ():
    # Otherwise the tests above could not tell one from another.
    toy = ToyRequest(AUGMENTED_LAW)
    others = [
        TARGET_LAW,
        replace(AUGMENTED_LAW, eta=0.0),
        replace(AUGMENTED_LAW, tail_rule="restore"),
        replace(AUGMENTED_LAW, temperature=0.7),
        replace(AUGMENTED_LAW, top_p=0.8),
    ]
    for other in others:
        assert total_variation(toy.expected(), toy.expected(other)) > 0.01, other
    penalised = ToyRequest(AUGMENTED_LAW, repetition_penalty=1.4)
    assert total_variation(toy.expected(), penalised.expected()) > 0.01


# --- the law knows neither proposer nor draft length ------------------------------------------------------------


def adaptive() -> AdaptiveDraftLength:
    return AdaptiveDraftLength(3, CostModel(propose=0.3, score=0.0, verify=1.0, verify_per_token=0.05), measure=False)


GUESSWORK = {
    "drafter, 1": ("drafter", 1),
    "drafter, 2": ("drafter", 2),
    "drafter, 3": ("drafter", 3),
    "drafter, 2 then 0 then 1": ("drafter", lambda: ScriptedDraftLength(2, 0, 1)),
    "drafter, 0 then 1": ("drafter", lambda: ScriptedDraftLength(0, 1)),
    "drafter, adaptive": ("drafter", adaptive),
    "prompt lookup, 0 then 2": ("prompt_lookup", lambda: ScriptedDraftLength(0, 2)),
    "prompt lookup, adaptive": ("prompt_lookup", adaptive),
    "uniform": (lambda request: Stubborn([[1 / 3] * 3] * 3), 2),
    "never token 0, stops early": (lambda request: Stubborn([[0.0, 0.5, 0.5], [0.0, 0.25, 0.75]], stops=True), 2),
    "certain, in rows": (lambda request: Stubborn([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), 2),
    "certain": (Oracle, 2),
}


@pytest.mark.parametrize("law", [TARGET_LAW, AUGMENTED_LAW], ids=lambda law: law.kind)
def test_the_output_distribution_is_the_same_for_every_draft_length_and_proposer(law):
    plain = outcomes(ToyRequest(law, "none"))
    for name, (proposer, length) in GUESSWORK.items():
        assert largest_difference(outcomes(ToyRequest(law, proposer, length)), plain) < TOLERANCE, name


def test_the_loop_notices_a_proposer_that_misreports_its_distribution():
    class Liar(Stubborn):
        def propose(self, max_tokens, rng) -> Proposal:
            honest = super().propose(max_tokens, rng)
            return Proposal(honest.token_ids, honest.probs.flip(-1) if honest.token_ids else None)

    toy = ToyRequest(TARGET_LAW, lambda request: Liar([[0.1, 0.2, 0.7]] * 2))
    assert total_variation(outcomes(toy), toy.expected()) > 0.01


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "draft_lm", "hybrid"])
def test_stop_strings_cut_the_law_of_the_text(proposer):
    toy = ToyRequest(AUGMENTED_LAW, proposer, stop=("ab", "cc"))
    cut: dict[str, float] = {}
    for tokens, probability in toy.expected().items():
        text = "".join("abc"[token] for token in tokens)
        end = min((at for stop in toy.stop if (at := text.find(stop)) >= 0), default=len(text))
        cut[text[:end]] = cut.get(text[:end], 0.0) + probability
    assert largest_difference(enumerate_outcomes(lambda rng: toy.run(rng).text), cut) < TOLERANCE


# --- the published rule ------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2])
def test_the_published_rule_follows_neither_p_nor_p_hat(length):
    toy = ToyRequest(Law("paper", temperature=1.0, eta=5.0), "drafter", length)
    published = outcomes(toy)
    assert sum(published.values()) == pytest.approx(1.0)
    assert total_variation(published, toy.expected(AUGMENTED_LAW)) > 0.01
    assert total_variation(published, toy.expected(TARGET_LAW)) > 0.01


# --- greedy ------------------------------------------------------------


@pytest.mark.pairs
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none", "draft_lm", "hybrid"])
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_greedy_output_is_the_argmax_of_the_law(kind, proposer, length):
    accepted = drafted = 0
    for seed, penalty, eta in itertools.product(range(3), (1.0, 1.3), (0.0, 10.0, "auto")):
        model = TableLM(seed, 6)
        toy = ToyRequest(
            Law(kind, eta=eta, tail_rule=("mask", "restore")[seed % 2]),
            proposer,
            length,
            max_new_tokens=25,
            eos=frozenset({5}) if seed else frozenset(),
            repetition_penalty=penalty,
            frequency_penalty=(0.0, 0.3, -0.2)[seed],
            presence_penalty=(0.7, -0.4, 0.0)[seed] if penalty > 1.0 else 0.0,
            target=model,
            drafter=near(model, 100 + seed),
            drafter_prompt=ToyRequest.target_prompt,
            vocab_size=6,
        )
        done = toy.run(Randomness(0))
        assert done.tokens == toy.best()
        assert done.finish_reason == ("length" if len(done.tokens) == 25 else "eos")
        drafted, accepted = drafted + done.recorder.drafted, accepted + done.recorder.accepted
    if proposer == "drafter":
        assert 0 < accepted < drafted


@pytest.mark.parametrize("length", [1, 3])
def test_greedy_output_of_the_published_rule(length):
    # Greedy is the argmax of the law formed at T = 1, which for "paper" is p_hat.
    for seed in range(3):
        model = TableLM(seed, 6)
        toy = ToyRequest(
            Law("paper", eta=10.0),
            draft_length=length,
            max_new_tokens=25,
            target=model,
            drafter=near(model, 100 + seed),
            drafter_prompt=ToyRequest.target_prompt,
            vocab_size=6,
        )
        assert toy.run(Randomness(0)).tokens == toy.best()


def test_a_long_prompt_is_read_in_chunks():
    model = TableLM(3, 6)
    prompt = tuple(torch.randint(6, (2500,), generator=torch.Generator().manual_seed(0)).tolist())
    toy = ToyRequest(
        Law("augmented", eta=10.0),
        max_new_tokens=12,
        target=model,
        drafter=near(model, 4),
        target_prompt=prompt,
        drafter_prompt=prompt[:1300],
        vocab_size=6,
    )
    assert toy.run(Randomness(0)).tokens == toy.best()
    assert model.passes[:3] == [(1024, 0), (1024, 0), (451, 0)]  # the last token waits for the first round


def test_a_prompt_of_one_token():
    toy = ToyRequest(AUGMENTED_LAW, target_prompt=(1,), drafter_prompt=(2,))
    assert deviation(toy) < TOLERANCE


# --- the caches ------------------------------------------------------------


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none", "draft_lm", "hybrid"])
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_caches_hold_the_text_and_nothing_else(kind, proposer):
    toy = ToyRequest(Law(kind, temperature=1.0, eta=5.0), proposer, lambda: ScriptedDraftLength(3, 0, 2, 1), 20)
    for seed in range(20):
        done = toy.run(Randomness(seed))
        reads_drafter = kind == "augmented" or proposer in ("drafter", "hybrid")
        for sequence, prompt in ((done.target, toy.target_prompt), (done.drafter, toy.drafter_prompt)):
            if sequence is done.target or reads_drafter:
                assert sequence.tokens == [*prompt, *done.tokens]
                keys, _ = sequence.cache.layer(0)
                assert keys.flatten().tolist() == sequence.tokens[: sequence.cache.length]
                assert sequence.cache.length < len(sequence.tokens)  # the next round has something to feed


def test_one_pass_of_the_target_a_round_and_no_drafter_step_on_a_rejection():
    for seed in range(10):
        toy = ToyRequest(AUGMENTED_LAW, draft_length=3, max_new_tokens=20)
        done = toy.run(Randomness(seed))
        passes = done.recorder.rounds
        assert len([1 for _, keep in toy.target.passes if keep]) == passes
        assert sum(keep for _, keep in toy.target.passes) == done.recorder.drafted + passes
        # A step per drafted token, and one more where all were accepted (the law behind the draft needs q there).
        steps = len([1 for _, keep in toy.drafter.passes if keep])
        rejected = done.recorder.tokens - done.recorder.accepted  # a correction or a bonus: one a round
        assert rejected == passes
        assert done.recorder.drafted < steps <= done.recorder.drafted + passes


def test_nothing_is_drafted_beyond_what_is_wanted():
    for tokens in (1, 2, 3):
        toy = ToyRequest(AUGMENTED_LAW, Oracle, draft_length=8, max_new_tokens=tokens)
        done = toy.run(Randomness(0))
        assert len(done.tokens) == tokens
        assert toy.target.passes[1] == (tokens, tokens)  # behind the prefill: the prompt's last token and the draft


def test_nothing_is_scored_or_drawn_behind_the_end():
    # The drafter is the target: what it drafts is accepted.
    model = TableLM(7, 3)
    ends = 0
    for seed in range(20):
        toy = ToyRequest(
            Law("augmented", temperature=1.0, eta=0.0),
            draft_length=4,
            max_new_tokens=5,
            eos=frozenset({0}),
            target=model,
            drafter=model,
            drafter_prompt=ToyRequest.target_prompt,
        )
        done = toy.run(Randomness(seed))
        if done.finish_reason == "eos" and done.recorder.accepted == len(done.tokens):
            ends += 1
            assert done.drafter.cache.length < len(done.drafter.tokens)  # no step for q behind the end
    assert ends > 5


def test_a_foreign_proposal_is_scored_in_one_pass():
    for seed in range(10):
        toy = ToyRequest(AUGMENTED_LAW, Oracle, draft_length=3, max_new_tokens=20)
        done = toy.run(Randomness(seed))
        assert len([1 for _, keep in toy.drafter.passes if keep]) == done.recorder.rounds


def test_a_correction_may_equal_the_rejected_token():
    # The published residual can draw it, and so can the exact one where the law and q differ by rounding only.
    done = ToyRequest(TARGET_LAW).run(Randomness(0))
    sequence, tokens = done.target, len(done.target.tokens)
    read(sequence, [0, 1], keep=3)
    sequence.commit([0])  # rejected at position 0; the correction is token 0 again
    assert sequence.cache.length < len(sequence.tokens) == tokens + 1
    assert read(sequence, [], keep=1)[0, :3].tolist() == pytest.approx(sequence.model.logits_after(sequence.tokens)[:3])


# --- two devices ------------------------------------------------------------


class Elsewhere(torch.Tensor):
    """Stands for a tensor on the drafter's own device: `to` brings it over, and nothing else may mix it with others."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.to:
            return args[0].as_subclass(torch.Tensor)
        if getattr(function, "__self__", None) is torch.Tensor.is_cpu:
            return False
        tensors = [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else [arg])]
        if any(isinstance(x, torch.Tensor) and not isinstance(x, Elsewhere) for x in tensors):
            raise RuntimeError(f"{function.__name__}: expected all tensors to be on the same device")
        return super().__torch_function__(function, types, args, kwargs or {})


class FarTableLM(TableLM):
    def read(self, token_ids, cache, keep):
        return super().read(token_ids, cache, keep).as_subclass(Elsewhere)


@pytest.mark.parametrize(
    "proposer",
    [
        "drafter",
        "prompt_lookup",
    ],
)
def test_the_drafter_may_live_on_another_device(proposer):
    toy = ToyRequest(AUGMENTED_LAW, proposer, drafter=FarTableLM(2, 3))
    assert deviation(toy) < TOLERANCE


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup"])
@pytest.mark.parametrize(("target", "drafter"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_two_real_devices(target, drafter, proposer):
    toy = ToyRequest(
        AUGMENTED_LAW,
        proposer,
        repetition_penalty=1.3,
        target=TableLM(1, 3, device=target),
        drafter=TableLM(2, 3, device=drafter),
    )
    assert deviation(toy) < TOLERANCE


# --- target and drafter with the same weights read a draft in one pass ----------------------------------------------


def shared(law, proposer="drafter", length=2, **settings):
    table = SharedTableLM(1, 3)
    return ToyRequest(law, proposer, length, target=table, drafter=table, **settings)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "hybrid", "none", "draft_lm"])
@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("law", [AUGMENTED_LAW, replace(AUGMENTED_LAW, tail_rule="restore", top_p=0.9)], ids=str)
def test_shared_passes_follow_the_law(law, length, proposer):
    assert deviation(shared(law, proposer, length)) < TOLERANCE


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "hybrid", "none", "draft_lm"])
def test_shared_passes_and_separate_ones_give_the_same_sample(proposer):
    apart = TableLM(1, 3)
    for seed in range(30):
        for law in (AUGMENTED_LAW, replace(AUGMENTED_LAW, temperature=0.0)):
            one = shared(law, proposer, max_new_tokens=12).tokens(Randomness(seed))
            other = ToyRequest(law, proposer, 2, target=apart, drafter=apart, max_new_tokens=12)
            assert one == other.tokens(Randomness(seed))


def test_verifying_and_scoring_are_one_pass():
    """Without drafts a round is one pass of two rows; behind a draft of the drafter's own it scores one row more."""
    toy = shared(AUGMENTED_LAW, "none", max_new_tokens=5)
    toy.run(Randomness(0))
    rounds = [each for each in toy.target.passes if isinstance(each[0], tuple)]
    assert rounds == [((1, 1), (1, 1))] * 5
    toy = shared(AUGMENTED_LAW, "drafter", 2, max_new_tokens=8)
    toy.run(Randomness(0))
    verified = [each for each in toy.target.passes if isinstance(each[0], tuple)]
    assert verified and all(scoring[1] == 1 and keep == new for (new, keep), scoring in verified[:1])


def test_a_law_without_a_drafter_scores_nothing():
    toy = shared(TARGET_LAW, "drafter")
    toy.run(Randomness(0))
    assert not [each for each in toy.target.passes if isinstance(each[0], tuple)]
