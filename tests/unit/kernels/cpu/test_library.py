"""Kernels that lie compiled in the cache folder are loaded if there is no compiler: an image can ship them."""

import json
import logging
import os
import shutil

import pytest

from rapid_integrations.kernels.cpu import compiler, library


@pytest.fixture
def shipped(fresh_process, monkeypatch):
    """The folder of kernels as an image has it, in a process that finds no compiler."""
    assert library.native_library() is not None
    (shipped,) = (fresh_process / "home" / "kernels").glob("*.so")
    monkeypatch.setattr(library, "_outcome", None)
    monkeypatch.setattr(compiler, "compile_to", None)  # nothing can be compiled
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    return shipped


def test_they_are_loaded_without_a_compiler(shipped, caplog):
    stages = []
    with caplog.at_level(logging.WARNING):
        assert library.native_library(lambda *stage: stages.append(stage))._name == str(shipped)
    assert stages == [] and library.why_not_native() == "" and caplog.records == []


def test_of_a_processor_with_less(shipped):
    about = compiler._about_file(shipped)
    made_for = json.loads(about.read_text())
    about.write_text(json.dumps({**made_for, "features": made_for["features"][:3]}))
    assert library.native_library() is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": ["an_instruction_of_2040"]}, "needs a processor with an_instruction_of_2040"),
        ({"machine": "abacus"}, "was made for abacus"),
    ],
)
def test_not_those_of_another_processor(shipped, change, reason):
    about = compiler._about_file(shipped)
    about.write_text(json.dumps({**json.loads(about.read_text()), **change}))
    assert library.native_library() is None
    assert "apt install g++" in library.why_not_native() and reason in library.why_not_native()


@pytest.mark.parametrize("suffix", [".json", ".sha256"])
def test_not_those_that_nothing_is_known_of(shipped, suffix):
    shipped.with_suffix(suffix).unlink()
    assert library.native_library() is None and shipped.with_suffix(suffix).name in library.why_not_native()


def test_not_those_of_other_sources(shipped):
    shutil.move(shipped, shipped.with_name("kernels-0000000000000000-1111111111111111.so"))
    assert library.native_library() is None
    assert f"none of this version lies in {shipped.parent}" in library.why_not_native()


def test_not_those_that_others_may_change(shipped):
    shipped.parent.chmod(0o777)
    assert library.native_library() is None and "others may write" in library.why_not_native()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_those_of_root_are_trusted(shipped, monkeypatch):
    owner = os.geteuid()
    monkeypatch.setattr(compiler.os, "geteuid", lambda: owner + 1)
    if owner == 0:  # as in an image: root has built it, and the service runs as somebody else
        assert library.native_library() is not None
    else:
        assert library.native_library() is None


def test_the_warning_says_what_was_measured(shipped, caplog):
    shipped.unlink()
    with caplog.at_level(logging.WARNING):
        assert library.native_library() is None
    assert "2.5 times slower" in caplog.text
