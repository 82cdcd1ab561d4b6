"""The kernels as a process finds them that has not loaded them yet, and those for other processors."""

import shutil

import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library as build
from rapid_integrations.kernels.cpu.interface import opened


@pytest.fixture(scope="session")
def portable(tmp_path_factory):
    """The kernels without any instruction that only some processors have; the compiler has nothing to say of them."""
    target = tmp_path_factory.mktemp("portable") / "portable.so"
    build._compile(
        shutil.which("c++") or shutil.which("g++"), target, "-DRAPID_PORTABLE", "-Wall", "-Wextra", "-Werror"
    )
    return opened(target)


@pytest.fixture
def fresh_process(monkeypatch, tmp_path):
    """As if nothing had been loaded, with a compiler that hands out what was compiled for this process."""
    held = tmp_path / "compiled.so"
    shutil.copy(native.native_library()._name, held)

    def compile_quickly(_, target):
        target.unlink(missing_ok=True)  # it may be mapped
        shutil.copy(held, target)
        build._checksum_file(target).write_text(build._checksum(held))
        build._about_file(target).write_text(build._about())

    monkeypatch.setattr(build, "_outcome", None)
    monkeypatch.setattr(build, "_compile", compile_quickly)
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "home"))
    return tmp_path
