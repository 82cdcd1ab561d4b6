"""Ctrl-C in a benchmark: what is whole is shown, and the exit status is 130."""

import json

from rapid_integrations.benchmarks.decode import DecodeBench, DecodeResult
from rapid_integrations.benchmarks.proposers import ProposersBench

FOUR = ("--context", "1500", "--new-tokens", "8", "--max-questions", "4")


def pressed_in_call(number, of, name, monkeypatch):
    """Press Ctrl-C in this call of a benchmark's method, counted from 1."""
    calls, method = [0], getattr(of, name)

    def counted(self, *given):
        calls[0] += 1
        if calls[0] == number:
            raise KeyboardInterrupt
        return method(self, *given)

    monkeypatch.setattr(of, name, counted)


def figures_of(result):
    assert result.exit_code == 130, result.output
    assert "interrupted: these are the figures of what was whole" in result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["interrupted"] is True
    return figures


def test_decode_keeps_the_questions_that_all_methods_answered(bench, monkeypatch):
    pressed_in_call(13, DecodeBench, "_timed", monkeypatch)  # five methods: in the third question
    result = bench("decode", *FOUR, "--peers", "none")
    figures = figures_of(result)
    assert figures["questions"] == 2 and "2 questions" in result.stdout
    assert all(row["decode_tps"] for row in figures["methods"].values())


def test_so_do_proposers(bench, monkeypatch):
    pressed_in_call(2 + 2 + 1, ProposersBench, "_answer", monkeypatch)  # behind the warm-up and a question
    figures = figures_of(bench("proposers", *FOUR, "--proposers", "none,prompt_lookup"))
    assert figures["questions"] == 1
    assert [row["answers"] for kind in figures["kinds"].values() for row in kind.values()] == [1, 1]


def test_a_sweep_keeps_whole_points(bench, monkeypatch):
    pressed_in_call(4, DecodeBench, "_timed", monkeypatch)  # the second question of the second length
    lengths = ("--contexts", "800,1200,1500", "--new-tokens", "8", "--max-questions", "2", "--methods", "target")
    figures = figures_of(bench("sweep", *lengths, "--peers", "none"))
    assert [point["context"] for point in figures["contexts"]] == [800] and figures["questions"] == 2


def test_without_a_whole_question_there_is_nothing_to_show(bench, monkeypatch):
    pressed_in_call(2, DecodeBench, "_timed", monkeypatch)
    result = bench("decode", *FOUR, "--peers", "none")
    assert result.exit_code == 130 and not result.stdout
    assert result.stderr.strip().endswith("interrupted") and "Traceback" not in result.stderr


def test_a_whole_benchmark_says_so(bench):
    figures = json.loads(bench("decode", *FOUR[:-1], "1", "--peers", "none", "--json").stdout)
    assert figures["interrupted"] is False


def test_other_errors_are_not_held_back(monkeypatch, bench):
    def broken(self, *given):
        raise ZeroDivisionError

    monkeypatch.setattr(DecodeBench, "_timed", broken)
    assert isinstance(bench("decode", *FOUR, "--peers", "none").exception, ZeroDivisionError)
    assert DecodeResult("toy", "toy", {}).interrupted is False
