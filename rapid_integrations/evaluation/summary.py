"""The figures of a run: each method's score on each task, its gain over a baseline, and its decode speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.predictions import Prediction
from rapid_integrations.evaluation.statistics import Estimate, Resamples, interval, ratio_estimate

BASELINE = "lc"
MIN_SPEED_TOKENS = 8  # shorter answers say nothing about decode speed
AVERAGE = "average"
EITHER = ("lc", "rag")
"""The two methods that RAPID combines. It should not be worse than the better of them."""


@dataclass(frozen=True)
class Decoding:
    """The decoding figures of a method over all tasks.

    Speeds and times are those of questions that were asked alone, and None if there are none. In company, an answer's
    time depends on what the others read meanwhile, so methods cannot be compared by it.

    Attributes:
        tokens_per_s: output tokens over seconds of decoding, for answers of at least `MIN_SPEED_TOKENS` tokens.
        speedup: the ratio to the baseline on the same items; None, too, if no answer is long enough for both.
        acceptance: accepted share of the draft tokens; None if nothing is drafted.
        tokens_per_round: output tokens per pass of the answering model.
        prefill_s: median seconds of prefilling both prompts, if nothing of the target's was cached.
        seconds: median wall time per item.
    """

    tokens_per_s: float | None
    speedup: Estimate | None
    acceptance: float | None
    tokens_per_round: float
    prefill_s: float | None
    seconds: float | None


def well_covered(predictions: Sequence[Prediction]) -> list[str]:
    """Return the methods that answered at least half of the questions, in the order of their first appearance.

    A method that has only begun must not limit the comparison of the others.
    """
    questions = len({(p.task, p.item) for p in predictions})
    answered = Counter(p.method for p in predictions)
    return [method for method in answered if 2 * answered[method] >= questions]


def comparable(predictions: Sequence[Prediction], seed: int = 0, baseline: str = BASELINE) -> list[Summary]:
    """Return a summary for each set of methods, over the tasks that those methods (and no others) cover well.

    Raises:
        ConfigurationError: there are no predictions.
    """
    by_methods: dict[tuple[str, ...], list[Prediction]] = {}
    for task in dict.fromkeys(p.task for p in predictions):
        of_task = [p for p in predictions if p.task == task]
        methods = well_covered(of_task)
        by_methods.setdefault(tuple(methods), []).extend(of_task)
    if not by_methods:
        raise ConfigurationError("there are no predictions yet: continue the run")
    return [Summary(of_set, methods=methods, seed=seed, baseline=baseline) for methods, of_set in by_methods.items()]


class Summary:
    """Computes the figures over the items that every method has answered, so that all comparisons are paired.

    Args:
        predictions: the predictions of a run.
        methods: the methods in the order of the tables; None takes the order of their first appearance.
        baseline: the method that others are compared with. If it is missing, nothing is compared.
        seed: seed of the bootstrap.

    Raises:
        ConfigurationError: no item was answered by all methods.
    """

    def __init__(
        self,
        predictions: Sequence[Prediction],
        *,
        methods: Sequence[str] | None = None,
        baseline: str = BASELINE,
        seed: int = 0,
    ) -> None:
        self.methods = list(dict.fromkeys(p.method for p in predictions)) if methods is None else list(methods)
        self.baseline = baseline if baseline in self.methods else None
        self._seed = seed
        found = {prediction.key: prediction for prediction in predictions}
        self._rows: dict[str, list[dict[str, Prediction]]] = {}
        for task, item in dict.fromkeys((p.task, p.item) for p in predictions):
            row = {m: found[task, item, m] for m in self.methods if (task, item, m) in found}
            if len(row) == len(self.methods):
                self._rows.setdefault(task, []).append(row)
        if not self._rows:
            raise ConfigurationError(
                f"no question was answered by all of {', '.join(self.methods) or 'no methods'}: there is nothing to "
                "compare yet. Continue the run"
            )

    @property
    def tasks(self) -> list[str]:
        """The tasks with an item that all methods have answered."""
        return list(self._rows)

    def items(self, task: str) -> list[dict[str, Prediction]]:
        """Return the task's items, each a prediction per method."""
        return self._rows[task]

    def metric(self, task: str) -> str:
        """Return the name of the score in tables."""
        return next(iter(self._rows[task][0].values())).metric

    def score(self, method: str, tasks: Sequence[str] | None = None) -> Estimate:
        """Return a method's mean score on `tasks` (None for all). Each task counts equally."""
        return self._over_tasks(self._scores, method, tasks or self.tasks)

    def gain(self, method: str, tasks: Sequence[str] | None = None) -> Estimate | None:
        """Return the mean of the score's paired differences from the baseline, or None if there is no baseline."""
        if (baseline := self.baseline) is None:
            return None
        differences = {name: {method: scores[method] - scores[baseline]} for name, scores in self._scores.items()}
        return self._over_tasks(differences, method, tasks or self.tasks)

    def gain_over_better(self, method: str, tasks: Sequence[str] | None = None) -> Estimate | None:
        """Return the gain over the better method of `EITHER` on each task, or None if one of them is missing.

        The whole sample decides which one is better, not each resample.
        """
        if not set(EITHER) <= set(self.methods):
            return None
        better = {name: max((scores[one] for one in EITHER), key=np.mean) for name, scores in self._scores.items()}
        differences = {name: {method: scores[method] - better[name]} for name, scores in self._scores.items()}
        return self._over_tasks(differences, method, tasks or self.tasks)

    def decoding(self, method: str, tasks: Sequence[str] | None = None) -> Decoding:
        """Return a method's decoding figures over `tasks` (None for all)."""
        rows = [row for task in tasks or self.tasks for row in self._rows[task]]
        own = [row[method] for row in rows]
        alone = [p for p in own if p.at_once == 1]
        long = [p for p in alone if p.stats.tokens >= MIN_SPEED_TOKENS and p.stats.decode_s > 0]
        drafted = sum(p.stats.drafted_tokens for p in own)
        fresh = [p.stats.prefill_s for p in alone if not p.stats.cached_prompt_tokens]
        return Decoding(
            tokens_per_s=sum(p.stats.tokens for p in long) / sum(p.stats.decode_s for p in long) if long else None,
            speedup=self._speedup(rows, method),
            acceptance=sum(p.stats.accepted_tokens for p in own) / drafted if drafted else None,
            tokens_per_round=sum(p.stats.tokens for p in own) / max(1, sum(p.stats.rounds for p in own)),
            prefill_s=median(fresh) if fresh else None,
            seconds=median(p.seconds for p in alone) if alone else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        columns = {**{task: [task] for task in self.tasks}, AVERAGE: self.tasks}
        return {
            "baseline": self.baseline,
            "questions": {task: len(self._rows[task]) for task in self.tasks},
            "metrics": {task: self.metric(task) for task in self.tasks},
            "methods": {
                method: {
                    "scores": {name: asdict(self.score(method, tasks)) for name, tasks in columns.items()},
                    "gains": {name: _plain(self.gain(method, tasks)) for name, tasks in columns.items()},
                    "gains_over_better": {
                        name: _plain(self.gain_over_better(method, tasks)) for name, tasks in columns.items()
                    },
                    **asdict(self.decoding(method)),
                }
                for method in self.methods
            },
        }

    def _speedup(self, rows: Sequence[dict[str, Prediction]], method: str) -> Estimate | None:
        if (baseline := self.baseline) is None:
            return None
        pairs = [(row[method], row[baseline]) for row in rows]
        pairs = [p for p in pairs if all(one.at_once == 1 and one.stats.tokens >= MIN_SPEED_TOKENS for one in p)]
        if not pairs:
            return None
        own, its = (([p[side].stats.tokens for p in pairs], [p[side].stats.decode_s for p in pairs]) for side in (0, 1))
        resamples = Resamples.draw([f"{p[0].task} {p[0].document}" for p in pairs], self._seed)
        return ratio_estimate(own, its, resamples)

    def _over_tasks(self, values: dict[str, dict[str, Any]], method: str, tasks: Sequence[str]) -> Estimate:
        means = np.mean([np.mean(values[task][method]) for task in tasks])
        resampled = np.mean([self._resamples[task].means(values[task][method]) for task in tasks], axis=0)
        return interval(float(means), resampled)

    @cached_property
    def _scores(self) -> dict[str, dict[str, Any]]:
        return {
            task: {method: np.array([row[method].score for row in rows]) for method in self.methods}
            for task, rows in self._rows.items()
        }

    @cached_property
    def _resamples(self) -> dict[str, Resamples]:
        return {
            task: Resamples.draw([next(iter(row.values())).document for row in rows], self._seed + number)
            for number, (task, rows) in enumerate(self._rows.items())
        }


def _plain(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else asdict(estimate)
