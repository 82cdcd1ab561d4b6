"""`rapid bench together`: the same questions in turn and at once."""

import json

import pytest

from rapid_integrations.benchmarks.pace import _pace
from tests.unit.benchmarks.conftest import summary

SHORT = ("--context", "2400", "--new-tokens", "8", "--max-questions", "3")


def test_the_command(bench, tmp_path):
    picture = tmp_path / "plot.png"
    found = bench("together", *SHORT, "--plot", str(picture))
    figures = summary(found)
    assert figures["questions"] == 3 and 2000 < figures["prompt_tokens"] <= 2400 and figures["skipped"] == {}
    assert set(figures["methods"]) == {"target", "rapid"}
    for row in figures["methods"].values():
        assert set(row["whole"]) == {"turn", "threads", "tasks", "batch"}
        assert set(row["decoding"]) == {"turn", "threads", "tasks"}
        assert row["seeded_same"] == 3
        for stage in ("whole", "decoding"):
            for way, figure in row[stage].items():
                assert figure["same"] == 3 and figure["wall_s"] > 0 < figure["cpu_s"], (stage, way)
        assert row["whole"]["turn"]["faster"] == row["decoding"]["turn"]["faster"] == 1.0
        # All caches share the document's rows.
        assert all(1 <= way["kv_of_one"] < 2 for way in row["whole"].values())  # three copies would be more
        assert row["pace"]["alone_tps"] > 0 < row["pace"]["other_beside_s"]
    target = figures["methods"]["target"]["decoding"]
    assert target["turn"]["rows_per_pass"] == 1.0 < target["threads"]["rows_per_pass"] <= 3.0
    assert "batch" in found.stdout and "seeded samples are the same" in " ".join(found.stdout.split())
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_question_is_refused(bench, folder, tmp_path):
    alone = tmp_path / "one.jsonl"
    alone.write_text(json.dumps({"question": "where?"}))
    result = bench("together", *SHORT, "--document", "document.md", "--questions", str(alone), questions=False)
    assert result.exit_code == 1 and "give two about one document" in " ".join(result.stderr.split())


def test_questions_about_another_document_are_left_out(bench, folder, tmp_path):
    mixed = tmp_path / "mixed.jsonl"
    document = (folder / "document.md").read_text()
    lines = [{"input": document, "instructions": ["where?", "who?"]}, {"input": "b " * 900, "instructions": ["why?"]}]
    mixed.write_text("\n".join(json.dumps(line) for line in lines))
    found = bench("together", *SHORT, "--questions", str(mixed), questions=False)
    assert summary(found)["questions"] == 2


def test_methods_and_ways_can_be_chosen(bench):
    figures = summary(bench("together", *SHORT, "--methods", "target", "--ways", "tasks", "--repeats", "2", "--json"))
    assert set(figures["methods"]) == {"target"}
    assert list(figures["methods"]["target"]["whole"]) == ["turn", "tasks"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "rapid,raip"), "no method is called 'raip'; there are: target, rapid"),
        (("--ways", "processes"), "no way to ask is called 'processes'; there are: turn, threads, tasks, batch"),
    ],
)
def test_errors_are_taught(bench, arguments, said):
    result = bench("together", *SHORT, *arguments)
    assert result.exit_code == 1 and said in " ".join(result.stderr.split()), result.stderr


@pytest.mark.parametrize(
    ("moments", "end", "expected"),
    [
        ([(1.0, 1), (2.0, 2), (5.0, 1)], 5.0, (0.8, 3.0, 4)),
        ([(1.0, 1), (2.0, 2), (5.0, 1)], 4.0, (0.75, 2.0, 3)),  # the last piece came too late
        ([], 4.0, (0.0, 4.0, 0)),
    ],
)
def test_the_pace_of_an_answer(moments, end, expected):
    assert _pace(moments, 0.0, end) == expected
