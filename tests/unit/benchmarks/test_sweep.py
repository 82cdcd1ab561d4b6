"""`rapid bench sweep`: every method at every context length, and RAPID at every retrieval length."""

import pytest

from tests.unit.benchmarks.conftest import summary

SHORT = ("--contexts", "2400,1200", "--new-tokens", "8", "--max-questions", "1")


def test_the_command(bench, tmp_path):
    picture = tmp_path / "plot.png"
    found = bench("sweep", *SHORT, "--retrievals", "600,300", "--peers", "transformers", "--plot", str(picture))
    figures = summary(found)
    methods = ("transformers", "target", "target_lookup", "rapid")
    assert [(p["context"], p["method"]) for p in figures["contexts"]] == [
        (context, method) for context in (1200, 2400) for method in methods
    ]
    assert [p["retrieval"] for p in figures["retrievals"]] == [300, 600]
    read = [p["drafter_tokens"] for p in figures["retrievals"]]
    assert read[0] < read[1] < 1200
    for point in figures["contexts"]:
        assert point["decode_tps"]["median"] > 0 and point["prompt_tokens"] <= point["context"]
        assert (point["first_token_s"] is None) == (point["method"] == "transformers")
        assert (point["drafter_tokens"] is None) == (point["method"] != "rapid")
    assert "RAPID" in found.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_no_retrieval_lengths(bench, tmp_path):
    picture = tmp_path / "plot.png"
    options = ("--retrievals", "none", "--methods", "target", "--plot", str(picture))
    figures = summary(bench("sweep", *SHORT, *options, "--json"))
    assert figures["retrievals"] == [] and len(figures["contexts"]) == 2
    assert picture.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "rapid,raip"), "no method is called 'raip'; there are: target, "),
        (("--contexts", ""), "--contexts='': give one or more numbers"),
        (("--retrievals", "0"), "--retrievals='0'"),
    ],
)
def test_errors_are_taught(bench, arguments, said):
    result = bench("sweep", *arguments)
    assert result.exit_code == 1 and said in " ".join(result.stderr.split()), result.stderr
