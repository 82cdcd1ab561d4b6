"""The loss of a head on examples, and how many of its guesses a target would accept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.proposers.heads.training.corpus import LIKELY, Example
from rapid_integrations.proposers.heads.training.network import HeadNetwork

LATER_STEPS = 0.8
"""The loss of each further guess in a row counts so much less than that of the one before."""


@dataclass(frozen=True)
class Batch:
    """Examples of one step, padded to the same length.

    Attributes:
        states: (B, T, F).
        embedded: (B, T + steps, E), of the tokens from the second one on.
        likely: (B, T + steps, LIKELY), numbers of the head's own tokens; those that it has not are 0.
        chances: (B, T + steps, LIKELY), of these tokens; those that it has not, and padding, have 0.
        answer: (B, T + steps) bool, whether the row's next token belongs to an answer.
        best: (B, T + steps) int64, the head's own number of the target's best token; -1 if it has none, or for padding.
    """

    states: Tensor
    embedded: Tensor
    likely: Tensor
    chances: Tensor
    answer: Tensor
    best: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], target: GivesStates, own: Tensor, steps: int) -> Batch:
        """Pad examples.

        Args:
            examples: of one step.
            target: has the embedding table.
            own: (V,) the head's number of each of the target's tokens, -1 for those that it has not.
            steps: guesses in a row.
        """
        width = target.hidden_size
        longest = max(len(each.token_ids) for each in examples)

        def padded(rows: Tensor, length: int, value: float = 0) -> Tensor:
            return torch.cat([rows, rows.new_full((length - len(rows), *rows.shape[1:]), value)])

        embedded, likely, chances, answer, best = [], [], [], [], []
        for each in examples:
            count = len(each.token_ids)
            embedded.append(padded(target.embedded(each.token_ids[1:]).float().cpu(), longest + steps))
            numbers = own[each.likely.long()]
            known = numbers >= 0
            likely.append(padded(numbers.clamp(min=0), longest + steps))
            chances.append(padded(each.chances.float() * known, longest + steps))
            best.append(padded(numbers[:, 0], longest + steps, -1))
            asked = torch.arange(longest + steps)
            answer.append((asked >= each.prompt_tokens - 1) & (asked < count - 1))
        assert embedded[0].shape[1] == width and likely[0].shape[1] == LIKELY
        states = pad_sequence([each.states.float() for each in examples], batch_first=True)
        return cls(states, *(torch.stack(part) for part in (embedded, likely, chances, answer, best)))


def loss_of(network: HeadNetwork, batch: Batch, steps: int) -> Tensor:
    """Return the mean cross-entropy of the guesses against what the target finds likely, later guesses counting less.

    Row i of step j guesses behind the target's row i + j + 1. All rows count, those of the prompt, too: the target's
    distribution is known at each.
    """
    count = batch.states.shape[1]
    total = batch.states.new_zeros(())
    for step, logits in enumerate(network(batch.states, batch.embedded, steps)):
        behind = slice(step + 1, step + 1 + count)
        chances, likely = batch.chances[:, behind], batch.likely[:, behind]
        mass = chances.sum(dim=-1)
        counted = mass > 0.5  # elsewhere the head has not the tokens that it would need
        wide = logits.float()
        picked = wide.gather(-1, likely) - wide.logsumexp(dim=-1, keepdim=True)
        own = -(chances * picked).sum(dim=-1) / mass.clamp(min=1e-6)
        total = total + LATER_STEPS**step * (own * counted).sum() / counted.sum().clamp(min=1)
    return total


@torch.no_grad()
def acceptance(network: HeadNetwork, batches: Sequence[Batch], steps: int) -> list[float]:
    """Return for each step the share of guesses that are the target's best token, if those before them were.

    Only rows of answers are counted. The text is the target's own, so that a guess that is right is the next token of a
    greedy answer.
    """
    right, tried = [0.0] * steps, [0.0] * steps
    for batch in batches:
        count = batch.states.shape[1]
        going_on = batch.answer[:, :count].clone()
        for step, logits in enumerate(network(batch.states, batch.embedded, steps)):
            behind = slice(step + 1, step + 1 + count)
            going_on &= batch.answer[:, behind]
            correct = (logits.argmax(dim=-1) == batch.best[:, behind]) & going_on
            tried[step] += float(going_on.sum())
            right[step] += float(correct.sum())
            going_on = correct
    return [one / max(all_, 1.0) for one, all_ in zip(right, tried, strict=True)]
