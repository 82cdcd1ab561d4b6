"""Summaries by hand, and a picture for every study."""

import io

import pytest
from rich.console import Console

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.figures import draw
from rapid_integrations.evaluation.methods import parse_method
from rapid_integrations.evaluation.results_table import decoding_table, gains_table, groups_table, results_table
from rapid_integrations.evaluation.studies import STUDIES, eta_of, length_of, patterns, plan_study, summaries
from rapid_integrations.evaluation.summary import Summary, comparable
from tests.unit.evaluation.predictions import prediction


def run(methods, tasks=("a", "b"), questions=4):
    """Scores differ by method; every second question is answered right by the first method only."""
    return [
        prediction(
            task,
            str(number),
            method,
            float((number + index) % 2),
            document=str(number // 2),
            decode_s=2.0 / (1 + index),
            groups={"difficulty": "hard" if number == 0 else "easy"},
        )
        for task in tasks
        for number in range(questions)
        for index, method in enumerate(methods)
    ]


def test_a_summary_by_hand():
    rows = [
        prediction("a", "0", "lc", 1.0, tokens=20, decode_s=2.0),
        prediction("a", "0", "rapid", 0.5, tokens=30, decode_s=1.0),
        prediction("a", "1", "lc", 0.0, tokens=10, decode_s=1.0),
        prediction("a", "1", "rapid", 1.0, tokens=10, decode_s=1.0),
        prediction("a", "2", "lc", 0.0),  # not answered by the other: left out
        prediction("b", "0", "lc", 0.0, tokens=2),  # a letter: no speed in it
        prediction("b", "0", "rapid", 0.0, tokens=2),
    ]
    summary = Summary(rows)
    assert summary.methods == ["lc", "rapid"] and summary.tasks == ["a", "b"]
    assert [len(summary.items(task)) for task in summary.tasks] == [2, 1]
    assert summary.score("lc", ["a"]).value == 0.5 and summary.score("rapid", ["a"]).value == 0.75
    assert summary.score("rapid").value == pytest.approx(0.375)  # tasks count alike
    assert summary.gain("rapid", ["a"]).value == 0.25 and summary.gain("lc").value == 0.0
    decoding = summary.decoding("rapid")
    assert decoding.tokens_per_s == 20.0
    assert decoding.speedup.value == pytest.approx((40 / 2) / (30 / 3))
    assert decoding.acceptance == 0.75 and decoding.tokens_per_round == pytest.approx(42 / 30)
    assert decoding.prefill_s == 1.0
    assert summary.decoding("lc").acceptance is None and summary.decoding("lc").speedup.value == 1.0
    assert summary.decoding("rapid", ["b"]).tokens_per_s is None
    figures = summary.as_dict()
    assert figures["methods"]["rapid"]["scores"]["average"]["value"] == pytest.approx(0.375)
    assert figures["questions"] == {"a": 2, "b": 1}


def test_speeds_are_those_of_questions_asked_alone():
    rows = [
        prediction("a", str(number), method, tokens=20, decode_s=seconds, at_once=at_once)
        for number, at_once in enumerate((1, 8))
        for method, seconds in (("lc", 2.0 * at_once), ("rapid", 1.0 * at_once * at_once))
    ]
    alone = Summary(rows).decoding("rapid")
    assert (alone.tokens_per_s, alone.speedup.value, alone.seconds) == (20.0, 2.0, 1.0)
    summary = Summary(rows[2:])
    company = summary.decoding("rapid")
    assert (company.tokens_per_s, company.speedup, company.prefill_s, company.seconds) == (None,) * 4
    assert (company.acceptance, company.tokens_per_round) == (0.75, 2.0)
    shown = io.StringIO()
    Console(file=shown, width=120).print(decoding_table(summary))
    assert "questions asked alone" in shown.getvalue() and "--at-once 1" in shown.getvalue()


def test_studies_of_speed_ask_questions_alone():
    timed = {name: plan_study(name, lengths=(100,), retrieved=(10,)).timed for name in STUDIES}
    assert timed == {"main": True, "robustness": True, "lengths": True, "dialogue": True, "success": False}


def test_without_a_baseline_or_a_common_question():
    summary = Summary([prediction(method="rag")])
    assert summary.baseline is None and summary.gain("rag") is None and summary.decoding("rag").speedup is None
    assert gains_table(summary) is None
    with pytest.raises(ConfigurationError, match="no question was answered by all of lc, rag"):
        Summary([prediction("a", "0", "lc"), prediction("a", "1", "rag")])


def test_what_was_only_begun_does_not_hinder_a_comparison():
    rows = run(("lc", "rapid"), tasks=("a", "b")) + run(("lc", "rag"), tasks=("c",))
    rows.append(prediction("a", "0", "sd"))
    first, second = comparable(rows)
    assert (first.methods, first.tasks, len(first.items("a"))) == (["lc", "rapid"], ["a", "b"], 4)
    assert (second.methods, second.tasks) == (["lc", "rag"], ["c"])
    with pytest.raises(ConfigurationError, match="no predictions yet"):
        comparable([])


def test_the_tables_say_it():
    summary = Summary(run(("lc", "rag", "rapid")))
    console = Console(width=120, record=True, file=io.StringIO())
    for table in (results_table(summary), gains_table(summary), decoding_table(summary), groups_table(summary, "a")):
        console.print(table)
    text = console.export_text()
    assert "50.0" in text and "2.00x" in text and "3.00x" in text and "75%" in text and "hard, n=1" in text
    assert groups_table(Summary([prediction()]), "t") is None


def test_which_questions_each_method_gets_right():
    counts = patterns(Summary(run(("lc", "rag", "rapid"), tasks=("a",))))
    assert counts == {("rag",): 2, ("lc", "rapid"): 2}


def test_plans():
    assert plan_study("main").methods == ("lc", "rag", "sd", "magicdec", "rapid")
    assert "rag-target" in plan_study("main", other_drafter=True).methods
    robustness = plan_study("robustness").methods
    assert len(robustness) == 15 and "rapid:eta=20,context=unrelated" in robustness
    lengths = plan_study("lengths", lengths=[1024, 2048], retrieved=[256])
    assert lengths.lengths == (1024, 2048) and lengths.methods == ("lc", "rapid:retrieved=256")
    for study in ("main", "robustness", "dialogue", "success"):
        for method in plan_study(study).methods:
            parse_method(method)
    with pytest.raises(ConfigurationError, match="--length 4096"):
        plan_study("lengths")
    with pytest.raises(ConfigurationError, match="no study is called 'speed'"):
        plan_study("speed")


def test_names_tell_what_was_varied():
    assert eta_of(parse_method("rapid:eta=2.5")) == 2.5 == eta_of(parse_method("rapid:eta=2.5,context=unrelated"))
    assert eta_of(parse_method("rapid:eta=auto")) == "auto"
    assert eta_of(parse_method("rapid")) is None and eta_of(parse_method("rapid:eta=1,tail=restore")) is None
    assert (length_of("facts@800"), length_of("facts"), length_of("own:a@b")) == (800, None, None)


def test_a_picture_for_every_study(tmp_path):
    pytest.importorskip("matplotlib")
    variants = plan_study("robustness").methods[1:]
    rows = run(("lc", "rag", "sd", "rapid", *variants)) + run(("lc", "rag", "sd", "rapid"), tasks=("dialogue",))
    rows += run(("lc", "rapid:retrieved=256", "rapid:retrieved=512"), tasks=("a@512", "a@1024", "b@512", "b@1024"))
    found = summaries(rows)
    assert found.keys() == STUDIES.keys()
    assert found["main"].methods == ["lc", "rag", "sd", "rapid"] and found["dialogue"].tasks == ["dialogue"]
    assert found["lengths"].tasks == ["a@512", "a@1024", "b@512", "b@1024"]
    for study, summary in found.items():
        path = tmp_path / "plots" / f"{study}.png"
        draw(study, summary, path, "a title")
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_default_strength_by_its_name_is_the_engine_s_default():
    found = summaries(run(("lc", "rag", "rapid:eta=auto", "rapid:eta=2")))
    assert found["success"].methods == ["lc", "rag", "rapid:eta=auto"]


def test_a_study_that_has_only_begun_has_no_picture():
    rows = run(("lc", "rapid"), tasks=("a",))
    rows.append(prediction("b", "0", "rapid:eta=5"))
    rows.append(prediction("c", "0", "rapid:eta=10"))
    assert summaries(rows).keys() == {"main"}
