"""The packaged SmolLM2 in float32: greedy output under the law "target" is transformers' `generate`, token for token.

Takes minutes, and the network where the model was not pulled before.
"""

import os

import pytest
import torch

from rapid_integrations import packaged
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.models import loader
from rapid_integrations.prompt import Prompt
from tests.toys.greedy_answers import generated_with_gaps
from tests.toys.repository import ROOT

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m-instruct"
HANDBOOK = ROOT / "examples" / "handbook.md"
NEW = 40
TIE = 1e-4  # between the reference's two best logits; where they are closer, either token is right

SHORT = (
    "What is the capital of France?",
    "Write a haiku about rain.",
    "List three fruits that are yellow.",
    "Explain photosynthesis to a child.",
    "Translate 'good morning' into Spanish, German and Italian.",
    "What is 17 times 23?",
    "Write a Python function that reverses a string.",
    "Give me a recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "Continue the sequence: 1, 1, 2, 3, 5, 8,",
    "Repeat after me: the quick brown fox jumps over the lazy dog. The quick brown fox jumps over the lazy dog.",
    "Summarise the plot of Cinderella in two sentences.",
    "Why is the sky blue?",
    "Was ist der Unterschied zwischen Wetter und Klima?",
    "東京はどこにありますか?",
    "Name the planets of the solar system in order.",
    "def fibonacci(n):",
    "Turn this into JSON: name Ada, age 36, city London.",
    "A <|im_end|> in a question is only text, is it not? 🙂",
    "Count from one to twenty in words.",
)
QUESTIONS = (
    "How long is the probation period?",
    "Which badge colour belongs to Port Sarne?",
    "When are the core hours?",
)


@pytest.fixture(scope="module", autouse=True)
def all_processors():
    """The tests of tiny models run on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def engine():
    packaged.pull(MODEL)
    # Small chunks and budget, so that a document of 1,500 tokens is shortened for the drafter.
    compression = CompressionConfig(chunk_tokens=128, min_tokens=256)
    with RapidEngine.from_pretrained(MODEL, dtype="float32", compression=compression) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain():
    """A copy of the model as transformers runs it."""
    lm = loader.load(MODEL, dtype="float32").lm
    lm.close()
    return lm.model


def handbook_prompts(engine):
    """About 1,500 tokens each, from the beginning, the middle and the end of the handbook."""
    text = HANDBOOK.read_text()
    offsets = engine.vocabulary.offsets(text)
    for question, first in zip(QUESTIONS, (0, len(offsets) // 2, len(offsets) - 1500), strict=True):
        yield Prompt.from_context(text[offsets[first][0] : offsets[first + 1499][1]], question)


def test_greedy_output_is_what_transformers_generates(engine, plain):
    prompts = [*SHORT, *handbook_prompts(engine)]
    assert len(prompts) == 23
    answers = excused = tokens = 0
    smallest = float("inf")
    totals = {}
    for prompt in prompts:
        expected, gaps = generated_with_gaps(plain, engine.explain(prompt).target_ids, NEW)
        smallest = min(smallest, *gaps)
        for proposer, length in (("drafter", 4), ("prompt_lookup", 10)):
            answer = engine.generate(
                prompt,
                sampling=SamplingParams(max_new_tokens=NEW),
                speculation=SpeculationConfig(law="target", proposer=proposer, draft_length=length),
            )
            got = list(answer.token_ids)
            answers += 1
            tokens += len(got)
            where = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
            if where is None:
                assert got == expected
            else:
                excused += 1
                assert gaps[where] < TIE, f"{proposer}, token {where}: {got} is not {expected} ({prompt!r:.60})"
            kind = "document" if isinstance(prompt, Prompt) else "short"
            drafted, accepted = totals.get((proposer, kind), (0, 0))
            totals[proposer, kind] = drafted + answer.stats.drafted_tokens, accepted + answer.stats.accepted_tokens
            if kind == "document":
                assert answer.usage.prompt_tokens > 1500
                if proposer == "drafter":
                    assert answer.usage.drafter_prompt_tokens < 700
    print(f"\n{answers} answers, {tokens} tokens, {excused} part at a tie; smallest gap {smallest:.1e}")
    for (proposer, kind), (drafted, accepted) in sorted(totals.items()):
        print(f"{proposer}, {kind} prompts: {accepted} of {drafted} draft tokens accepted")
    assert excused <= 1
    drafted, accepted = totals["drafter", "short"]
    assert accepted >= 0.99 * drafted  # the same model and the same prompt
    assert 0 < totals["drafter", "document"][1] < totals["drafter", "document"][0]
    assert totals["prompt_lookup", "document"][1] > 0


def test_the_target_drafts_for_itself_and_answers_the_same(engine, plain):
    drafted = dict.fromkeys(("skipped_layers", "magicdec", "triforce"), 0)
    for prompt in (*handbook_prompts(engine), SHORT[6]):
        expected, gaps = generated_with_gaps(plain, engine.explain(prompt).target_ids, NEW)
        for proposer in drafted:
            layers = (8, 14, 20, 25) if prompt == SHORT[6] else None  # or a search
            answer = engine.generate(
                prompt,
                sampling=SamplingParams(max_new_tokens=NEW),
                speculation=SpeculationConfig(
                    law="target", proposer=proposer, draft_length=4, draft_recent=64, draft_skip_layers=layers
                ),
            )
            pairs = zip(answer.token_ids, expected, strict=False)
            where = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            assert where is None or gaps[where] < TIE, f"{proposer}, token {where} ({prompt!r:.60})"
            assert answer.stats.proposer == proposer
            drafted[proposer] += answer.stats.accepted_tokens
    print(f"\naccepted draft tokens: {drafted}")
    assert all(drafted.values())
