"""The kernels as a process finds them that has not loaded them yet, and those for other processors."""

import shutil
from contextlib import nullcontext

import pytest
from filelock import FileLock

from rapid_integrations.cache import freed_pages
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import compiler, library
from rapid_integrations.kernels.cpu.interface import opened
from tests.toys.budget import BUDGET

STRICT = ("-Wall", "-Wextra", "-Werror")


@pytest.fixture(scope="session")
def portable(kernels):
    """The kernels without any instruction that only some processors have; the compiler has nothing to say of them.

    They are kept beside this machine's own, under a hash of the same things: no run compiles them again. By day the
    compiler optimises less, which takes half of the time. (With -O1 the last bits of norms are others.)
    """
    command, effort = compiler.find_compiler(), () if BUDGET == "nightly" else ("-O2",)
    target = kernels / "-".join(["portable", *effort, compiler._name(command)])
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # the other worker wants them, too
        if not target.exists():
            compiler.compile_to(command, target, "-DRAPID_PORTABLE", *STRICT, *effort)
    return opened(target)


@pytest.fixture(autouse=True)
def every_row_is_kept(monkeypatch):
    """Tests fork texts anywhere; a cache with windows keeps rows for some places (tests/laws/test_freed_rows.py)."""
    monkeypatch.setattr(freed_pages, "serves", lambda: False)


@pytest.fixture
def fresh_process(monkeypatch, tmp_path):
    """As if nothing had been loaded, with a compiler that hands out what was compiled for this process."""
    loaded = native.native_library()
    if loaded is None:
        pytest.skip("there are no kernels here: no compiler, or RAPID_NATIVE=0")
    held = tmp_path / "compiled.so"
    shutil.copy(loaded._name, held)

    def compile_quickly(_, target):
        target.unlink(missing_ok=True)  # it may be mapped
        shutil.copy(held, target)
        compiler._checksum_file(target).write_text(compiler._checksum(held))
        compiler._about_file(target).write_text(compiler._about())

    monkeypatch.setattr(library, "_outcome", None)
    monkeypatch.setattr(compiler, "compile_to", compile_quickly)
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(params=["units", "vectors"])
def either(request):
    """Prompts, and the attention of steps, are computed on matrix units, or on vectors."""
    has_units = native.native_library() is not None and native.native_library().rapid_uses_amx()
    if request.param == "units" and not has_units:
        pytest.skip("this processor has no matrix units")
    with nullcontext() if request.param == "units" else library.without_matrix_units():
        yield
