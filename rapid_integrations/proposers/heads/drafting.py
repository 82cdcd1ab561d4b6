"""A head at work in a request: it takes the target's hidden states from its passes, and drafts chains and trees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rapid_integrations.cache.hidden_states import WantedStates
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.proposal import MOST_TOKENS, Proposal
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.tree_shape import TreeShape
from rapid_integrations.proposers.candidates import Candidate, depth_first
from rapid_integrations.proposers.heads.head import DraftHead, Node
from rapid_integrations.sampling import ROOT, Randomness, mask

_CHILDREN = 4  # continuations of a place in a tree
_WIDTH = 6  # places that go on at each level
_CALLS_BYTES = 8 << 20  # a step's many small operators take as long as the reading of so many bytes


class HeadDrafter:
    """Drafts with a head that reads the hidden states of a target's reader.

    It is made before the target reads its prompt. A row that another request has read gives no states, so the head
    knows the text from the first row on that this request reads itself. That changes what is proposed, and no law.

    Args:
        head: trained for the reader's model.
        reader: the target's.
        rules: the request's.
        own_rows_only: take no states of the prompt but those of its last row. What is proposed then does not depend on
            what earlier requests have left in caches.
    """

    def __init__(self, head: DraftHead, reader: Reader, rules: Rules, *, own_rows_only: bool = False) -> None:
        self._head, self._rules = head, rules
        self._tokens = list(reader.tokens)
        self._text = head.begin()
        self._passes: list[tuple[int, list[int], tuple[int, ...] | None, Tensor]] = []
        self._unread: list[tuple[list[int], Tensor]] = []  # positions, and their states
        self._next = 0  # the first position whose state has not been taken
        last = len(self._tokens) - 1
        first = last if own_rows_only else max(0, last - head.window)
        reader.states = WantedStates(head.levels, first, self._take)
        self.step_bytes = float(head.step_bytes + _CALLS_BYTES)
        # A level of a tree costs this share of a pass, roughly; it does not depend on clocks.
        self._cost = self.step_bytes / max(1, reader.model.weight_bytes)

    def read_prompt(self) -> None:
        """Read what the target has read of the prompt, so that the first draft does not take that time."""
        self._root()

    def draft(self, tokens: int, rng: Randomness, source: str = "") -> Steps[Proposal]:
        """Return a chain of at most `tokens` tokens. The head runs at once, so nothing is wanted of anybody."""
        yield from ()
        return self.chain(tokens, rng, source)

    def chain(self, tokens: int, rng: Randomness, source: str = "") -> Proposal:
        """Return a chain of at most `tokens` tokens, drawn as the law draws, or the best ones if it is greedy."""
        rules, law = self._rules, self._rules.law
        most = tokens if self._head.most_tokens is None else min(tokens, self._head.most_tokens)
        written: list[int] = []
        proposed: list[Tensor] = []
        node = self._root() if most > 0 else None
        while node is not None and not (written and written[-1] in rules.eos_token_ids):
            logits = rules.penalty.apply(self._over_all_tokens(node.logits), written)
            allowed = None if rules.constraint is None else rules.constraint.allowed(written)
            if bool(mask(logits, allowed).isneginf().all()):
                break  # nothing that is allowed is among the head's own tokens
            distribution = law.propose(logits, allowed)
            if distribution is None:
                written.append(law.ops.best(mask(logits, allowed)))
            else:
                written.append(rng.draw(distribution))
                proposed.append(distribution)
            if len(written) == most:
                break
            (node,) = self._text.after([node], written[-1:])
        return Proposal(tuple(written), proposed or None, source)

    def tree(self, limit: int, shape: TreeShape, source: str = "") -> Proposal:
        """Return the likeliest continuations as a tree of point masses, with paths of at most `limit` tokens."""
        depth = min(limit, shape.depth)
        if self._head.most_tokens is not None:
            depth = min(depth, self._head.most_tokens)
        root = self._root() if depth > 0 else None
        if root is None:
            return Proposal((), source=source)
        candidates = self._grown(root, depth)
        order = sorted(range(len(candidates)), key=lambda each: (-candidates[each].chance, each))
        place = {ROOT: ROOT} | {each: at for at, each in enumerate(order)}
        likeliest = [
            Candidate(own.token, place[own.parent], own.share, own.chance)
            for own in (candidates[each] for each in order)
        ][: min(shape.most, MOST_TOKENS)]
        chosen = likeliest[: shape.choose([each.chance for each in likeliest])]
        tokens, parents = depth_first(chosen)
        return Proposal(tokens, source=source, parents=parents)

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make tokens part of the text, and take the states of those that the target has read."""
        self._tokens += token_ids
        self._settle()

    def _grown(self, root: Node, depth: int) -> list[Candidate]:
        """Return the tokens of a tree, parents first: levels are added while they are likely to be worth their cost."""
        candidates: list[Candidate] = []
        frontier: list[tuple[int, float, Node]] = [(ROOT, 1.0, root)]
        for level in range(1, depth + 1):
            here: list[tuple[float, int, int, Node]] = []
            for parent, chance, node in frontier:
                shares, own = node.logits.softmax(dim=-1).topk(min(_CHILDREN, node.logits.shape[-1]))
                for share, token in zip(shares.tolist(), self._tokens_of(own).tolist(), strict=True):
                    candidates.append(Candidate(token, parent, share, chance * share))
                    if token not in self._rules.eos_token_ids:
                        here.append((chance * share, len(candidates) - 1, token, node))
            here.sort(key=lambda each: (-each[0], each[1]))
            going_on = [each for each in here[:_WIDTH] if each[0] > self._cost]
            if level == depth or not going_on:
                break
            nodes = self._text.after([node for *_, node in going_on], [token for _, _, token, _ in going_on])
            frontier = [(at, chance, node) for (chance, at, _, _), node in zip(going_on, nodes, strict=True)]
        return candidates

    def _root(self) -> Node | None:
        """Return the place behind the committed text; None if no state is known, or not the last one."""
        self._settle()
        if self._unread:
            positions = [each for those, _ in self._unread for each in those]
            states = torch.cat([states for _, states in self._unread])
            self._unread = []
            self._text.follow(positions, [self._tokens[each + 1] for each in positions], states)
        return self._text.root() if self._next == len(self._tokens) - 1 else None

    def _take(self, first: int, token_ids: Tensor, parents: tuple[int, ...] | None, states: Tensor) -> None:
        self._passes = [each for each in self._passes if each[0] != first]  # a pass that failed is repeated
        self._passes.append((first, token_ids.tolist(), parents, states))

    def _settle(self) -> None:
        """Keep of the passes since the last time the rows that have become part of the text."""
        for first, ids, parents, states in self._passes:
            rows: list[int] = []
            last = ROOT
            for position in range(first, len(self._tokens) - 1):
                found = self._row(ids, parents, last, self._tokens[position])
                if found is None:
                    break
                rows.append(found)
                last = found
            skipped = max(0, self._next - first)
            if len(rows) > skipped:
                self._next = first + len(rows)
                kept = states if len(rows) == len(states) else states[rows]
                self._unread.append((list(range(first + skipped, self._next)), kept[skipped:]))
        self._passes = []

    @staticmethod
    def _row(ids: list[int], parents: tuple[int, ...] | None, last: int, token: int) -> int | None:
        """Return the row of a token that follows the row `last`."""
        if parents is None:
            return last + 1 if last + 1 < len(ids) and ids[last + 1] == token else None
        return next((row for row in range(last + 1, len(ids)) if parents[row] == last and ids[row] == token), None)

    def _tokens_of(self, own: Tensor) -> Tensor:
        return own if self._head.vocabulary is None else self._head.vocabulary[own]

    def _over_all_tokens(self, logits: Tensor) -> Tensor:
        """Return logits (V,) of (D,): those that the head cannot guess are -inf."""
        if self._head.vocabulary is None:
            return logits
        wide = logits.new_full((self._rules.vocab_size,), float("-inf"))
        wide[self._head.vocabulary] = logits
        return wide
