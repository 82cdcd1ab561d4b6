"""Option groups: a command takes a group, the command line has its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from rapid_integrations.cli.options import ModelOptions, SamplingOptions, SpeculationOptions, with_option_groups
from rapid_integrations.errors import ConfigurationError
from tests.toys.command_line import CliRunner


@dataclass(frozen=True)
class Colours:
    """A group."""

    ink: Annotated[str, typer.Option("--ink", "-i", help="What is written with.")] = "black"
    shades: Annotated[int, typer.Option(min=1, help="How many.")] = 3


@pytest.fixture
def command():
    """Return what runs a command with a group between its own parameters, and what it was given."""
    app, given = typer.Typer(), []

    @app.command()
    @with_option_groups
    def paint(*, wall: Annotated[str, typer.Argument()], loud: bool = False, colours: Colours, coats: int = 1) -> None:
        """Paint a wall."""
        given.append((wall, loud, colours, coats))

    return lambda *arguments: (CliRunner().invoke(app, arguments), given)


def test_a_group_is_made_of_its_options(command):
    result, given = command("north", "-i", "blue", "--coats", "2")
    assert result.exit_code == 0 and given == [("north", False, Colours("blue", 3), 2)]


def test_defaults_are_the_fields(command):
    assert command("north")[1] == [("north", False, Colours(), 1)]


def test_bounds_and_help_are_the_fields(command):
    assert command("north", "--shades", "0")[0].exit_code == 2
    shown = command("--help")[0].output
    assert "Paint a wall." in shown and "written" in shown and "colours" not in shown
    assert shown.index("--loud") < shown.index("--ink") < shown.index("--coats")


def test_settings_come_of_groups():
    assert SpeculationOptions(draft_length="7").config().draft_length == 7
    assert SpeculationOptions().config().draft_length == "auto"
    with pytest.raises(ConfigurationError, match="draft_length"):
        SpeculationOptions(draft_length="some").config()
    params = SamplingOptions(temperature=0.5, stop=["a", "b"], seed=3).params()
    assert (params.temperature, params.stop, params.seed, params.structured) == (0.5, ("a", "b"), 3, None)
    params = SamplingOptions(frequency_penalty=0.5, presence_penalty=-0.5).params()
    assert (params.frequency_penalty, params.presence_penalty) == (0.5, -0.5)
    assert SamplingOptions(min_new_tokens=7).params().min_new_tokens == 7


def test_an_engine_is_opened_with_what_was_chosen(monkeypatch):
    from rapid_integrations.engine.engine import RapidEngine

    opened, stages = [], []
    monkeypatch.setattr(RapidEngine, "from_pretrained", lambda **options: opened.append(options))
    chosen = ModelOptions(target="a", quantization="int4")
    chosen.load(lambda *stage: stages.append(stage), device="cpu", dtype="float32")
    (options,) = opened
    assert options.pop("on_progress") and stages == [("load models", 0, 1), ("load models", 1, 1)]
    given = {"target": "a", "quantization": "int4", "device": "cpu", "dtype": "float32"}
    defaults = {"drafter": None, "drafter_quantization": None, "draft_lm": None, "draft_head": None}
    defaults |= {"more_drafters": (), "embedder": "all-minilm-l6-v2", "kv_dtype": None, "sparse_prefill": None}
    assert options == {**given, **defaults}
