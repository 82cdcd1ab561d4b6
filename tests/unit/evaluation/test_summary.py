"""A run's figures, by hand."""

import pytest

from rapid_integrations.evaluation.results_table import better_table
from rapid_integrations.evaluation.summary import Summary
from tests.unit.evaluation.predictions import prediction


def predictions(scores):
    """From {task: {method: scores}}."""
    return [
        prediction(task, str(number), method, score, document=str(number))
        for task, methods in scores.items()
        for method, of_method in methods.items()
        for number, score in enumerate(of_method)
    ]


def test_the_better_one_is_chosen_task_by_task():
    summary = Summary(
        predictions(
            {
                "a": {"lc": [1.0, 1.0, 0.0, 0.0], "rag": [0.0, 1.0, 0.0, 0.0], "rapid": [1.0, 1.0, 1.0, 0.0]},
                "b": {"lc": [0.0, 0.2], "rag": [0.4, 0.8], "rapid": [0.2, 0.8]},
            }
        )
    )
    assert summary.gain_over_better("rapid", ["a"]).value == pytest.approx(0.25)  # over lc
    assert summary.gain_over_better("rapid", ["b"]).value == pytest.approx(-0.1)  # over rag
    average = summary.gain_over_better("rapid")
    assert average.value == pytest.approx(0.075) and average.low <= average.value <= average.high
    assert summary.gain_over_better("lc", ["a"]).value == 0.0
    assert summary.as_dict()["methods"]["rapid"]["gains_over_better"]["average"]["value"] == pytest.approx(0.075)
    assert better_table(summary).row_count == 1


def test_without_both_there_is_no_better_one():
    summary = Summary(predictions({"a": {"lc": [1.0], "rapid": [1.0]}}))
    assert summary.gain_over_better("rapid") is None and better_table(summary) is None
    assert summary.as_dict()["methods"]["rapid"]["gains_over_better"]["a"] is None
    assert better_table(Summary(predictions({"a": {"lc": [1.0], "rag": [1.0]}}))) is None
