"""Greedy output is the law's, token for token: transformers' own `generate`, or p_hat computed slowly.

A token may differ only where the reference's two best candidates are as good as tied; the comparison of that answer
ends there. The reference models are built anew and never see this package.
"""

import itertools

import pytest
import torch

from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.decoding.proposal import Proposal
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models.loader import wrap
from rapid_integrations.prompt import Prompt
from tests.toys.budget import BUDGET, in_turn, pairs
from tests.toys.decoders import model as decoder
from tests.toys.embedder import HashEmbedder
from tests.toys.greedy_answers import (
    DOCUMENTS,
    EOS_IDS,
    NEW,
    SHORT,
    ask,
    assert_same_answer,
    engine,
    generated,
    model,
    prompt_ids,
    text_of,
)
from tests.toys.models import (
    EOS_ID,
    IM_END_ID,
    KINDS,
    VOCAB_SIZE,
    byte_tokenizer,
    tiny_model,
    words,
)
from tests.toys.reference_law import automatic_eta
from tests.toys.scripted_proposer import use_script

SLOWLY = NEW if BUDGET == "nightly" else 8  # tokens that are recomputed without any cache
TIE_AUGMENTED = 1e-3  # between the two best log p_hat: eta multiplies rounding

MODELS = [(kind, seed) for kind in ("llama", "qwen2") for seed in range(4)] + [
    (kind, 7) for kind in KINDS if kind not in ("llama", "qwen2")
]
# By day two of each architecture's models, by night all.
EACH_MODEL = [pytest.param(*each, marks=pytest.mark.slow if each[1] in (2, 3) else ()) for each in MODELS]
PROMPTS = SHORT + DOCUMENTS


def each_with(*ways):
    """Return questions to each model, and how it is to answer them: by day each two of the three meet, at night all."""
    asked = {model: [] for model in MODELS}
    models = MODELS if BUDGET == "nightly" else [(kind, seed) for kind, seed in MODELS if seed not in (2, 3)]
    for each, prompt, way in pairs(models, range(len(PROMPTS)), ways):
        asked[each].append((PROMPTS[prompt], way))
    return asked


SELF_SPECULATION = each_with(1, 4, 10, "auto")
OTHER_WAYS = each_with(("prompt_lookup", 10), ("hybrid", 5), ("none", "auto"))


# --- law "target": lossless -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "seed"), EACH_MODEL)
def test_self_speculation_gives_what_the_model_generates(kind, seed):
    running = engine(kind, seed)
    for prompt, length in SELF_SPECULATION[kind, seed]:
        answer = ask(running, prompt, "drafter", length)
        assert_same_answer(answer, *generated(kind, seed, text_of(prompt)))
        if prompt in DOCUMENTS:
            assert answer.usage.drafter_prompt_tokens < answer.usage.prompt_tokens
        elif length != "auto":  # the same model, the same context: always right
            assert answer.stats.acceptance_rate in (1.0, None)


def test_a_drafter_with_another_context_is_right_sometimes():
    stats = [ask(engine("llama", seed), document).stats for seed in range(4) for document in DOCUMENTS]
    assert 0 < sum(s.accepted_tokens for s in stats) < sum(s.drafted_tokens for s in stats)


@pytest.mark.parametrize(("kind", "seed"), EACH_MODEL)
def test_prompt_lookup_and_plain_decoding_give_what_the_model_generates(kind, seed):
    running = engine(kind, seed)
    for prompt, (proposer, length) in OTHER_WAYS[kind, seed]:
        answer = ask(running, prompt, proposer, length)
        assert_same_answer(answer, *generated(kind, seed, text_of(prompt)))


def test_prompt_lookup_is_right_where_the_model_repeats_itself():
    # Attention that hardly matters makes a model a table of successors: it soon runs in a circle.
    accepted = 0
    for seed in range(3 if BUDGET == "nightly" else 2):
        running, plain = (tiny_model("llama", seed, num_hidden_layers=1).requires_grad_(False) for _ in range(2))
        for each in (running, plain):
            each.model.layers[0].self_attn.o_proj.weight.mul_(0.05)
        with RapidEngine.from_models(running, byte_tokenizer()) as ours:
            for prompt in SHORT:
                ids = torch.tensor([prompt_ids(prompt)])
                result = plain.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=60,
                    pad_token_id=EOS_ID,
                    output_scores=True,
                    return_dict_in_generate=True,
                )
                best = torch.cat(result.scores).topk(2).values
                for length in in_turn((1, 4, 10, "auto"), seed):
                    answer = ask(ours, prompt, "prompt_lookup", length, new=60)
                    assert_same_answer(
                        answer, result.sequences[0, ids.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()
                    )
                    if length != "auto":  # which depends on the clock, and begins with few
                        accepted += answer.stats.accepted_tokens
    assert accepted > 20


OTHERS = {
    "its twin": lambda kind, seed: (kind, seed, ()),
    "a stranger": lambda kind, seed: (kind, seed + 100, ()),
    "a smaller one": lambda kind, seed: ("llama", seed + 100, (("num_hidden_layers", 1),)),
    "another family": lambda kind, seed: ({"llama": "qwen2"}.get(kind, "llama"), seed, (("num_hidden_layers", 3),)),
    "a wider one": lambda kind, seed: (kind, seed + 100, (("vocab_size", 320),)),
}


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize(("kind", "seed"), [("llama", 0), ("qwen2", 1), ("gemma3", 7)])
def test_a_separate_drafter_changes_nothing(kind, seed, other):
    running = engine(kind, seed, OTHERS[other](kind, seed))
    for prompt in (SHORT[3], DOCUMENTS[0]):
        expected = generated(kind, seed, text_of(prompt))
        for length in (1, 4, "auto"):
            answer = ask(running, prompt, "drafter", length)
            assert_same_answer(answer, *expected)
            if other == "its twin" and isinstance(prompt, str) and length != "auto":
                assert answer.stats.acceptance_rate in (1.0, None)


def test_padding_rows_of_the_target_are_never_generated():
    kind, seed, wide = "llama", 2, 320
    running = engine(kind, seed, (kind, 102, ()), wide)
    padding = 0
    for number, prompt in enumerate(SHORT):
        expected = generated(kind, seed, prompt, vocab_size=wide, shared=VOCAB_SIZE)
        padding += max(generated(kind, seed, prompt, vocab_size=wide)[0]) >= VOCAB_SIZE
        for proposer in in_turn(("drafter", "prompt_lookup", "hybrid", "tree_hybrid", "adaptive", "none"), number):
            assert_same_answer(ask(running, prompt, proposer, 4), *expected)
    assert padding  # without the cut it would be


# Scripts know the answer (and go on behind its end); each returns what to propose after `output`.


def _known(expected):
    return [*expected, *range(40)]


def always_right(expected, vocabulary):
    return lambda output, most, rng: _known(expected)[len(output) :][:most]


def never_right(expected, vocabulary):
    return lambda output, most, rng: [(token + 1) % vocabulary for token in _known(expected)[len(output) :][:most]]


def right_then_wrong(expected, vocabulary):
    def script(output, most, rng):
        good = (7 * len(output) + 3) % 5
        known = _known(expected)[len(output) :][:most]
        return known[:good] + [(token + 5) % vocabulary for token in known[good:]]

    return script


def shorter_than_asked_for(expected, vocabulary):
    return lambda output, most, rng: _known(expected)[len(output) :][: len(output) % (most + 1)]


def ends_at_once(expected, vocabulary):
    return lambda output, most, rng: [EOS_ID, IM_END_ID][:most]


def drawn_from_a_distribution(expected, vocabulary):
    """Half of each distribution lies on the right token, the rest anywhere: rejections have a residual to form."""

    def script(output, most, rng):
        known = _known(expected)[len(output) :][:most]
        probs = torch.rand(len(known), vocabulary, generator=torch.Generator().manual_seed(len(output)))
        probs = 0.5 * probs / probs.sum(-1, keepdim=True)
        probs[range(len(known)), known] += 0.5
        tokens = tuple(rng.draw(row) for row in probs)
        return Proposal(tokens, probs if tokens else None)

    return script


SCRIPTS = (
    always_right,
    never_right,
    right_then_wrong,
    shorter_than_asked_for,
    ends_at_once,
    drawn_from_a_distribution,
)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("kind", "seed"), [("llama", 1), ("qwen2", 2), ("mistral", 7), ("gemma3", 7)])
def test_whatever_is_proposed_changes_nothing(monkeypatch, kind, seed, script):
    running = engine(kind, seed)
    for number, prompt in enumerate(SHORT[1:], seed):
        expected, gaps = generated(kind, seed, prompt)
        use_script(monkeypatch, script(expected, VOCAB_SIZE))
        for length in in_turn((1, 4, 10), number):
            answer = ask(running, prompt, "scripted", length)
            assert_same_answer(answer, expected, gaps)
            if script is never_right:
                assert answer.stats.accepted_tokens == 0
                assert answer.stats.tokens_per_round == 1
            if script is always_right:
                assert answer.stats.rounds == -(-len(expected) // (length + 1))


@pytest.mark.once
@pytest.mark.parametrize("penalty", [0.8, 1.3])
@pytest.mark.parametrize(("kind", "seed"), [("llama", 0), ("gemma3", 7)])
def test_a_repetition_penalty_is_transformers(monkeypatch, kind, seed, penalty):
    running = engine(kind, seed)
    differs = 0
    for number, prompt in enumerate((SHORT[0], SHORT[2], DOCUMENTS[1]), penalty > 1):
        expected, gaps = generated(kind, seed, text_of(prompt), penalty=penalty)
        differs += expected != generated(kind, seed, text_of(prompt))[0]
        use_script(monkeypatch, right_then_wrong(expected, VOCAB_SIZE))
        ways = tuple(itertools.product(("drafter", "prompt_lookup", "scripted"), (1, 6)))
        for proposer, length in in_turn(ways, number):
            answer = ask(running, prompt, proposer, length, penalty=penalty)
            assert_same_answer(answer, expected, gaps)
            if proposer == "drafter" and isinstance(prompt, str):
                assert answer.stats.acceptance_rate in (1.0, None)
    assert differs


def test_a_repetition_penalty_on_logits_that_are_all_negative():
    ours, plain = (tiny_model("llama", 1) for _ in range(2))
    for each in (ours, plain):
        each.lm_head.bias = torch.nn.Parameter(torch.full((VOCAB_SIZE,), -30.0))
    ids = torch.tensor([prompt_ids(SHORT[3])])
    result = plain.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NEW,
        repetition_penalty=1.3,
        pad_token_id=EOS_ID,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(result.scores).topk(2).values
    assert best.max() < 0
    with RapidEngine.from_models(ours, byte_tokenizer()) as running:
        for proposer in ("drafter", "prompt_lookup"):
            answer = ask(running, SHORT[3], proposer, 4, penalty=1.3)
            gaps = (best[:, 0] - best[:, 1]).tolist()
            assert_same_answer(answer, result.sequences[0, ids.shape[1] :].tolist(), gaps)


def test_no_end_before_the_least_length():
    """Against transformers' own `min_new_tokens`, with a bias that makes the model end at once otherwise."""
    running, reference = engine("llama", 0), model("llama", 0)
    ends = sorted(EOS_IDS)
    for number, prompt in enumerate((SHORT[2], SHORT[3], DOCUMENTS[1])):
        ids = torch.tensor([prompt_ids(text_of(prompt))])
        result = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=5,
            max_new_tokens=NEW,
            sequence_bias={(end,): 30.0 for end in ends},
            output_scores=True,
            return_dict_in_generate=True,
        )
        best = torch.cat(result.scores).topk(2).values
        written, gaps = result.sequences[0, ids.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()
        assert len(written) == 6 and written[-1] in ends
        ways = tuple(itertools.product(("drafter", "prompt_lookup", "tree_hybrid", "none"), (1, 6)))
        for proposer, length in in_turn(ways, number):
            answer = running.generate(
                prompt,
                sampling=SamplingParams(
                    max_new_tokens=NEW, min_new_tokens=5, logit_bias=dict.fromkeys(ends, 30.0), repetition_penalty=1.0
                ),
                speculation=SpeculationConfig(law="target", proposer=proposer, draft_length=length),
            )
            assert_same_answer(answer, written, gaps)
            assert answer.finish_reason == "eos"


@pytest.mark.parametrize(("frequency", "presence"), [(2.0, 0.0), (0.0, 0.9), (-1.0, 1.5)])
def test_frequency_and_presence_penalties(frequency, presence):
    """Against a loop that counts what was written and asks the model anew for each token."""
    running, reference = engine("llama", 0), model("llama", 0)
    differs = 0
    for number, prompt in enumerate((SHORT[2], SHORT[3], DOCUMENTS[1])):
        text, written, gaps = prompt_ids(text_of(prompt)), [], []
        while len(written) < NEW and not EOS_IDS.intersection(written):
            with torch.no_grad():
                logits = reference(torch.tensor([[*text, *written]])).logits[0, -1]
            counts = torch.bincount(torch.tensor(written, dtype=torch.long), minlength=len(logits))
            best = (logits - frequency * counts - presence * (counts > 0)).topk(2)
            gaps.append(float(best.values[0] - best.values[1]))
            written.append(int(best.indices[0]))
        differs += written != generated("llama", 0, text_of(prompt))[0]
        ways = tuple(itertools.product(("drafter", "prompt_lookup", "retrieval_tree", "none"), (1, 6)))
        for proposer, length in in_turn(ways, number):
            answer = running.generate(
                prompt,
                sampling=SamplingParams(
                    max_new_tokens=NEW, frequency_penalty=frequency, presence_penalty=presence, repetition_penalty=1.0
                ),
                speculation=SpeculationConfig(law="target", proposer=proposer, draft_length=length),
            )
            assert_same_answer(answer, written, gaps)
            if proposer == "drafter" and isinstance(prompt, str):
                assert answer.stats.acceptance_rate in (1.0, None)  # the drafter counts as the target does
    assert differs


# --- law "augmented": p_hat at every position -----------------------------------------------------------------------


def slow_p_hat(z, drafter_logits, eta, tail_rule, alpha, relevance, trust):
    """log p_hat in float64, straight from Eq. 6 of arXiv 2502.20330 and its two tail rules."""
    z, drafter_logits = z.double(), drafter_logits.double()
    p, q = torch.softmax(z, -1), torch.softmax(drafter_logits, -1)
    if eta == "auto":
        moves = [tail_rule == "restore" or b >= alpha * q.max() for b in q]
        eta = automatic_eta(p.tolist(), q.tolist(), moves, relevance, trust)
    if tail_rule == "mask":
        moved = torch.tensor(
            [b - a if b >= alpha * q.max() else 0.0 for a, b in zip(p.tolist(), q.tolist(), strict=True)]
        )
        return torch.log_softmax(z + eta * moved.double(), -1)
    shifted = torch.softmax(z + eta * (q - p), -1)
    restored = [a if s < alpha * shifted.max() else s for a, s in zip(p.tolist(), shifted.tolist(), strict=True)]
    restored = torch.tensor(restored, dtype=torch.float64)
    return (restored / restored.sum()).log()


@torch.inference_mode()
def slow_answer(
    target,
    drafter,
    target_ids,
    drafter_ids,
    width,
    eta,
    tail_rule,
    alpha=0.1,
    penalty=1.0,
    new=NEW,
    relevance=1.0,
    trust=0.0,
):
    """Greedy decoding of p_hat: one full forward pass of both models per token, no cache."""
    output, gaps = [], []
    while len(output) < new and not EOS_IDS & set(output):
        logits = []
        for each, ids in ((target, target_ids), (drafter, drafter_ids)):
            row = each(torch.tensor([[*ids, *output]]), use_cache=False).logits[0, -1, :width].clone()
            for token in {*target_ids, *output}:
                row[token] = row[token] / penalty if row[token] > 0 else row[token] * penalty
            logits.append(row)
        best = slow_p_hat(*logits, eta, tail_rule, alpha, relevance, trust).topk(2)
        output.append(int(best.indices[0]))
        gaps.append(float(best.values[0] - best.values[1]))
    return output, gaps


# target, drafter (None: the target itself), width of the target, eta
AUGMENTED = {
    "self, llama": (("llama", 0), None, VOCAB_SIZE, 10.0),
    "self, qwen2": (("qwen2", 1), None, VOCAB_SIZE, 10.0),
    "self, gemma3": (("gemma3", 7), None, VOCAB_SIZE, 20.0),
    "larger drafter": (("llama", 2), ("llama", 50, (("num_hidden_layers", 4),)), VOCAB_SIZE, 40.0),
    "larger and wider drafter": (
        ("qwen2", 3),
        ("qwen2", 51, (("hidden_size", 48), ("num_hidden_layers", 3), ("vocab_size", 320))),
        VOCAB_SIZE,
        40.0,
    ),
    "larger drafter, wider target": (
        ("llama", 4),
        ("llama", 52, (("num_hidden_layers", 4), ("vocab_size", 270))),
        320,
        40.0,
    ),
    "self, automatic": (("qwen2", 3), None, VOCAB_SIZE, "auto"),
    "larger drafter, automatic": (("llama", 2), ("llama", 50, (("num_hidden_layers", 4),)), VOCAB_SIZE, "auto"),
    "smaller drafter": (("llama", 1), ("llama", 53, (("num_hidden_layers", 1),)), VOCAB_SIZE, 10.0),
}


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("tail_rule", ["mask", "restore"])
@pytest.mark.parametrize("case", AUGMENTED)
def test_the_augmented_law_is_p_hat_whatever_proposes(monkeypatch, case, tail_rule):
    (kind, seed), drafter, width, eta = AUGMENTED[case]
    number = list(AUGMENTED).index(case) + (tail_rule == "mask")
    running = engine(kind, seed, drafter, width)
    plain = model(kind, seed, vocab_size=width)
    plain_drafter = plain if drafter is None else model(drafter[0], drafter[1], **dict(drafter[2]))
    shared = min(width, plain_drafter.config.vocab_size)
    moved = 0
    for prompt in DOCUMENTS[:1] if width == VOCAB_SIZE else DOCUMENTS:
        prepared = running.explain(prompt)
        covered = min(1.0, max(0.0, 2 * prepared.query_coverage - 1))
        sizes = [sum(weight.numel() for weight in each.parameters()) for each in (plain, plain_drafter)]
        trust = 1 - (1 - covered) * min(1.0, sizes[0] / sizes[1])  # a larger drafter is believed more
        assert prepared.target_ids == prompt_ids(prompt)
        assert len(prepared.drafter_ids) < len(prepared.target_ids) / 2
        expected, gaps = slow_answer(
            plain,
            plain_drafter,
            prepared.target_ids,
            prepared.drafter_ids,
            shared,
            eta,
            tail_rule,
            new=SLOWLY,
            relevance=max(prepared.compression.relevance, covered),
            trust=trust,
        )
        moved += expected != generated(kind, seed, prompt.text, vocab_size=width)[0][: len(expected)]
        settings = {"law": "augmented", "eta": eta, "tail_rule": tail_rule}
        for script in in_turn((always_right, never_right, right_then_wrong, drawn_from_a_distribution), number):
            use_script(monkeypatch, script(expected, shared))
            answer = ask(running, prompt, "scripted", 4, new=SLOWLY, **settings)
            assert_same_answer(answer, expected, gaps, TIE_AUGMENTED)
        ways = [("drafter", 1), ("drafter", 10), ("drafter", "auto"), ("prompt_lookup", 4)]
        ways += [("hybrid", 4), ("hybrid", "auto"), ("adaptive", "auto")]
        for proposer, length in in_turn(ways, number):
            answer = ask(running, prompt, proposer, length, new=SLOWLY, **settings)
            assert answer.stats.law == "augmented"
            assert_same_answer(answer, expected, gaps, TIE_AUGMENTED)
    assert moved  # the law is not the target's


def test_trust_in_what_was_retrieved_is_part_of_the_law():
    running, plain = engine("qwen2", 3), model("qwen2", 3, vocab_size=VOCAB_SIZE)
    document = words(0, 120)
    prompt = Prompt.from_context(document, " ".join(document.split()[70:76]))
    prepared = running.explain(prompt)
    trust = 2 * prepared.query_coverage - 1
    assert 0.2 < trust < 0.8  # some of what the question names was retrieved
    inputs = (plain, plain, prepared.target_ids, prepared.drafter_ids, VOCAB_SIZE, "auto", "mask")
    relevance = max(prepared.compression.relevance, trust)
    expected, gaps = slow_answer(*inputs, new=SLOWLY, relevance=relevance, trust=trust)
    assert expected != slow_answer(*inputs, new=SLOWLY, relevance=relevance)[0]
    ways = (("drafter", 4), ("none", 1), ("prompt_lookup", 4), ("drafter", "auto"), ("hybrid", 4))
    for proposer, length in in_turn(ways, 0):
        answer = ask(running, prompt, proposer, length, "augmented", new=SLOWLY, eta="auto")
        assert_same_answer(answer, expected, gaps, TIE_AUGMENTED)
        assert answer.stats.query_coverage == prepared.query_coverage


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_of_the_tail_rules(alpha):
    running, plain = engine("llama", 0), model("llama", 0, vocab_size=VOCAB_SIZE)
    prepared = running.explain(DOCUMENTS[0])
    for tail_rule in ("mask", "restore"):
        expected = slow_answer(
            plain, plain, prepared.target_ids, prepared.drafter_ids, VOCAB_SIZE, 10.0, tail_rule, alpha
        )
        answer = ask(running, DOCUMENTS[0], "drafter", 4, "augmented", eta=10.0, tail_rule=tail_rule, tail_alpha=alpha)
        assert_same_answer(answer, *expected, TIE_AUGMENTED)


def test_a_penalty_on_both_models_under_the_augmented_law():
    running, plain = engine("qwen2", 1), model("qwen2", 1, vocab_size=VOCAB_SIZE)
    prepared = running.explain(DOCUMENTS[1])
    expected = slow_answer(
        plain, plain, prepared.target_ids, prepared.drafter_ids, VOCAB_SIZE, 10.0, "mask", penalty=1.5
    )
    ways = tuple(itertools.product(("drafter", "prompt_lookup", "hybrid", "none"), (1, 4, 10)))
    for proposer, length in in_turn(ways, 0):
        answer = ask(running, DOCUMENTS[1], proposer, length, "augmented", eta=10.0, penalty=1.5)
        assert_same_answer(answer, *expected, TIE_AUGMENTED)


def test_no_strength_at_all_is_the_target():
    running = engine("llama", 3)
    for prompt in DOCUMENTS:
        answer = ask(running, prompt, "drafter", 4, "augmented", eta=0.0)
        assert_same_answer(answer, *generated("llama", 3, prompt.text), TIE_AUGMENTED)


# --- the reference can tell -----------------------------------------------------------------------------------------


def test_most_answers_are_long_and_differ():
    answers = [tuple(generated(kind, seed, prompt)[0]) for kind, seed in MODELS for prompt in SHORT]
    assert len(set(answers)) > 0.95 * len(answers)
    assert sum(map(len, answers)) > 0.6 * NEW * len(answers)
    assert any(len(answer) < NEW for answer in answers)  # some end by themselves


@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
def test_long_drafts_that_both_models_read_change_no_bit_of_p_hat(monkeypatch):
    """Of 31 tokens, target and drafter read more rows in one pass than a step has."""
    shape = {"hidden_size": 576, "intermediate_size": 1536}  # so wide that PyTorch's products would differ
    loaded = wrap(decoder("qwen2", max_position_embeddings=4096, **shape), byte_tokenizer(), take_over=True)
    settings = {"embedder": HashEmbedder(), "compression": CompressionConfig(chunk_tokens=64, min_tokens=64)}
    with RapidEngine(loaded, **settings) as running:

        def traced(proposer):
            answer = running.generate(
                Prompt.from_context(words(1, 120), "which words?"),
                sampling=SamplingParams(max_new_tokens=40),
                speculation=SpeculationConfig(law="augmented", proposer=proposer, draft_length=31),
                trace=True,
            )
            assert answer.stats.law == "augmented" and answer.usage.drafter_prompt_tokens < answer.usage.prompt_tokens
            tokens = [(each.token_id, each.p, each.q, each.p_hat) for each in answer.trace.tokens]
            return tokens, max(each.drafted for each in answer.trace.rounds)

        expected, drafted = traced("none")
        assert len(expected) > 20 and drafted == 0
        use_script(monkeypatch, lambda output, most, rng: [each[0] for each in expected[len(output) :]])
        found, drafted = traced("scripted")
    assert drafted > 16 and found == expected
