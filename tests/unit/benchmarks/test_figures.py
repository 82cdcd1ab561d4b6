"""`--plot` of all benchmarks: what cannot be drawn is said before anything is measured, and no figure is lost."""

import io
import json

import pytest
from rich.console import Console

from rapid_integrations.benchmarks import figures
from rapid_integrations.cli import bench_options
from rapid_integrations.cli.options import ModelOptions
from rapid_integrations.errors import ConfigurationError
from tests.unit.benchmarks.conftest import summary

COMMANDS = ("decode", "proposers", "question", "together", "sweep", "memory")
SMALL = ("--context", "600", "--new-tokens", "8", "--max-questions", "2", "--methods", "target", "--ways", "threads")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plot_that_cannot_be_drawn(bench, tmp_path, monkeypatch, command):
    monkeypatch.setattr(ModelOptions, "load", lambda *arguments, **options: pytest.fail("the models are loaded"))
    for path, said in (
        (tmp_path / "nowhere" / "plot.png", "cannot be written"),
        (tmp_path, "cannot be written"),
        (tmp_path / "plot.xyz", ".xyz is no format of a plot; use .png"),
    ):
        refused = bench(command, "--plot", str(path))
        assert refused.exit_code == 1 and said in " ".join(refused.stderr.split()), refused.output
    monkeypatch.setattr(bench_options, "find_spec", lambda name: None)
    refused = bench(command, "--plot", str(tmp_path / "plot.png"))
    assert refused.exit_code == 1 and "rapid-integrations[plot]" in " ".join(refused.stderr.split())


def test_what_was_measured_is_printed_even_if_the_plot_fails(bench, tmp_path, monkeypatch):
    def full(figure, path):
        raise ConfigurationError(f"the plot cannot be written to {path}: no space left")

    monkeypatch.setattr("rapid_integrations.benchmarks.together_report.save_figure", full)
    found = bench("together", *SMALL, "--plot", str(tmp_path / "plot.png"))
    assert found.exit_code == 1 and "no space left" in " ".join(found.stderr.split())
    assert json.loads(found.stdout.splitlines()[-1])["benchmark"] == "together"


def test_every_format_that_is_taken_can_be_drawn(tmp_path):
    for suffix in bench_options.PICTURES:
        figure, _ = figures.new_figure(2, 2)
        figures.save_figure(figure, tmp_path / f"plot{suffix}")
    assert len(list(tmp_path.iterdir())) == len(bench_options.PICTURES) - 1  # without an ending it is a PNG, too


def test_a_plot_beside_its_figures(bench, tmp_path):
    assert summary(bench("together", *SMALL, "--plot", str(tmp_path / "plot.png")))["benchmark"] == "together"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_no_figure_is_cut_in_a_narrow_console():
    names = [f"evidence:a long name {number}" for number in range(12)]
    table = figures.figures_table("Scores", ["method"], names, ["A note that is as wide as the console, " * 3])
    table.add_row("RAPID", *(f"{number}.5 [10.0, 20.0]" for number in range(12)))
    said = io.StringIO()
    figures.print_table(Console(file=said, width=60), table)
    lines = said.getvalue().splitlines()
    assert any(all(name in line for name in names) for line in lines)
    assert any(all(f"{number}.5 [10.0, 20.0]" in line for number in range(12)) for line in lines)
    assert "…" not in said.getvalue()
    assert max(len(line) for line in lines if "wide as the console" in line) <= 60
