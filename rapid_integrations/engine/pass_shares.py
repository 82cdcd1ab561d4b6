"""Splits the seconds of a pass among the requests that shared it."""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.decoding.draft_length import SHARE_ON_PROCESSORS, SHARE_PER_TOKEN, LinearCost
from rapid_integrations.models.causal_lm import CausalLM


class PassShares:
    """What each request of a shared pass has cost.

    A pass takes time whoever is in it, above all to read the weights, and time for every row. Requests share the first
    part alike, and pay for their own rows. So a request learns what a further draft token really adds in its present
    company: it would seem to cost as much as the first token if the seconds were split by rows alone.
    """

    def __init__(self) -> None:
        self._costs: dict[int, LinearCost] = {}  # by model; an engine has few, and keeps them

    def split(self, model: CausalLM, rows: Sequence[int], seconds: float) -> list[float]:
        """Return each request's seconds, which add up to those of the pass, and learn from it.

        Args:
            model: whose pass it was.
            rows: the rows of each request.
            seconds: of the pass.
        """
        cost = self._costs.get(id(model))
        if cost is None:
            guess = SHARE_ON_PROCESSORS if model.device.type == "cpu" else SHARE_PER_TOKEN
            cost = self._costs[id(model)] = LinearCost(1.0, guess)
        cost.observe(sum(rows), seconds)
        weights = [cost.base / len(rows) + cost.slope * each for each in rows]
        whole = sum(weights) or 1.0  # a clock may not have moved yet
        return [seconds * weight / whole for weight in weights]
