"""The command `rapid bench` has one command per benchmark. Each ends with one JSON line on standard output."""

from __future__ import annotations

import typer

from rapid_integrations.cli.bench_decode import bench_decode, bench_proposers
from rapid_integrations.cli.bench_memory import bench_memory
from rapid_integrations.cli.bench_question import bench_question
from rapid_integrations.cli.bench_start import bench_start
from rapid_integrations.cli.bench_steps import bench_steps
from rapid_integrations.cli.bench_sweep import bench_sweep
from rapid_integrations.cli.bench_together import bench_together

bench_app = typer.Typer(help="Measure speed and memory on this machine.", no_args_is_help=True)
for _name, _command in (
    ("decode", bench_decode),
    ("proposers", bench_proposers),
    ("question", bench_question),
    ("together", bench_together),
    ("steps", bench_steps),
    ("sweep", bench_sweep),
    ("memory", bench_memory),
    ("start", bench_start),
):
    bench_app.command(_name)(_command)
