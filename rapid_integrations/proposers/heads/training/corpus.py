"""What a head learns from: answers that the target itself writes about given texts, with its hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.cache.hidden_states import LAST, WantedStates
from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.prompt import Prompt
from rapid_integrations.prompt.rendering import render

ASKED = (
    "Summarise the text.",
    "What is the text about?",
    "Which facts does the text state? List them.",
    "Explain the text in simple words.",
    "Quote the most important sentence, and say why it matters.",
)
"""Each passage is read with one of these, in turn."""

TEMPERATURES = (0.0, 0.8)
"""Answers are greedy and sampled in turn: a head is used for both."""


LIKELY = 48
"""Tokens of a distribution that a head learns from. What is left of it is hardly ever drawn."""


@dataclass(frozen=True)
class Passages:
    """How texts are cut.

    Attributes:
        prompt_tokens: tokens of a passage at most.
        answer_tokens: tokens of an answer at most.
        count: passages.
        seed: of their choice, and of sampled answers.
    """

    prompt_tokens: int
    answer_tokens: int
    count: int
    seed: int


@dataclass(frozen=True)
class Example:
    """A text that the target has read and written.

    Attributes:
        token_ids: (T,) int64.
        states: (T, F) of the levels that the head reads.
        likely: (T, `LIKELY`) int32, the tokens that the target finds likeliest behind each row.
        chances: (T, `LIKELY`), how likely it finds them.
        prompt_tokens: how many of the tokens are the prompt.
    """

    token_ids: Tensor
    states: Tensor
    likely: Tensor
    chances: Tensor
    prompt_tokens: int


def prompts_of(texts: Sequence[str], model: LoadedModel, passages: Passages) -> list[list[int]]:
    """Return the prompts, spread evenly over all texts, in an order that the seed decides."""
    vocabulary = model.vocabulary
    pieces: list[str] = []
    characters = 4 * passages.prompt_tokens  # of a passage; a token of English has four or five
    for text in texts:
        pieces += [text[begin : begin + characters] for begin in range(0, len(text), characters)]
    pieces = [piece for piece in pieces if len(piece) > characters // 4]
    order = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(passages.seed)).tolist()
    prompts = []
    for number, place in enumerate(order[: passages.count]):
        if vocabulary.chat_template is None:
            ids = vocabulary.encode(pieces[place])
        else:
            asked = Prompt.from_context([pieces[place]], ASKED[number % len(ASKED)])
            ids = vocabulary.encode_prompt(render(asked, vocabulary.chat_template))
        prompts.append(ids)
    return prompts


def written(
    model: LoadedModel, prompts: Sequence[list[int]], passages: Passages, levels: tuple[int, ...], first: int = 0
) -> Iterator[Example]:
    """Have the target answer prompts, several in one pass, and yield what it has read and written.

    Args:
        model: the target.
        prompts: of one pass; at most as many as it reads together.
        passages: how long answers are.
        levels: the states that the head reads.
        first: the number of the first prompt, which decides whether its answer is sampled.
    """
    lm = model.lm
    assert isinstance(lm, GivesStates), "the caller has checked it"
    texts = [list(prompt) for prompt in prompts]
    parts: list[list[Tensor]] = [[] for _ in prompts]

    def taking(number: int) -> WantedStates:
        return WantedStates((*levels, LAST), 0, lambda at, ids, tree, given: parts[number].append(given.bfloat16()))

    wanted = [taking(number) for number in range(len(texts))]
    caches = [lm.new_cache(len(text) + passages.answer_tokens + 1) for text in texts]
    for text, cache, states in zip(texts, caches, wanted, strict=True):
        ids = torch.tensor(text[:-1], device=lm.device)
        lm.forward([Rows(ids, cache, 0, of_prompt=True, states=states)])
    draw = torch.Generator().manual_seed(passages.seed + first)
    running = list(range(len(texts)))
    for _ in range(passages.answer_tokens):
        last = [
            Rows(torch.tensor(texts[each][-1:], device=lm.device), caches[each], 1, states=wanted[each])
            for each in running
        ]
        logits = lm.forward(last)
        going_on = []
        for each, own in zip(running, logits, strict=True):
            temperature = TEMPERATURES[(first + each) % len(TEMPERATURES)]
            token = int(own[0].argmax())
            if temperature:
                token = int(torch.multinomial((own[0].cpu() / temperature).softmax(0), 1, generator=draw))
            texts[each].append(token)
            if token not in model.vocabulary.eos_token_ids:
                going_on.append(each)
        running = going_on
        if not running:
            break
    for text, prompt, given in zip(texts, prompts, parts, strict=True):
        yield _example(lm, text, torch.cat(given), len(levels) * lm.hidden_size, len(prompt))


def _example(lm: GivesStates, text: Sequence[int], given: Tensor, width: int, prompt_tokens: int) -> Example:
    """Return an example; `given` (T, width + E) has what the head reads, and then what the target's own head reads."""
    chances, likely = lm.logits_of(given[:, width:]).softmax(dim=-1).topk(LIKELY, dim=-1)
    ids = torch.tensor(text[: len(given)])
    return Example(ids, given[:, :width].cpu(), likely.int().cpu(), chances.bfloat16().cpu(), prompt_tokens)


_PARTS = ("token_ids", "states", "likely", "chances")


def save(examples: Sequence[Example], path: Path) -> None:
    """Write examples to a safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for number, each in enumerate(examples):
        tensors |= {f"{number}.{part}": getattr(each, part).contiguous() for part in _PARTS}
        tensors[f"{number}.prompt_tokens"] = torch.tensor(each.prompt_tokens)
    whole = path.with_suffix(".part")
    save_file(tensors, whole)
    whole.replace(path)


def load(path: Path) -> list[Example]:
    """Read what `save` has written. The tensors are mapped into memory."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        count = len(file.keys()) // (len(_PARTS) + 1)
        return [
            Example(
                **{part: file.get_tensor(f"{number}.{part}") for part in _PARTS},
                prompt_tokens=int(file.get_tensor(f"{number}.prompt_tokens")),
            )
            for number in range(count)
        ]
