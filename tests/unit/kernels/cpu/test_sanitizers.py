"""Random rounds on kernels that check every address (ASan) and every operation (UBSan); `make test-sanitizers`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import compiler

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]
FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
PATHS = {"fast": (), "portable": ("-DRAPID_PORTABLE",)}
SECONDS = float(os.environ.get("RAPID_SANITIZER_SECONDS", "60"))


def runtime(name):
    """Return the sanitizer's library, which has to be there before anything else is: Python was built without it."""
    command = [*compiler.find_compiler(), f"-print-file-name={name}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip(f"the compiler has no {name}")
    return str(Path(found).resolve())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sanitized")


def sanitized(folder, path):
    """Return a library that checks itself, made once, and the environment in which Python can load it."""
    library = folder / f"{path}.so"
    if not library.exists():
        compiler.compile_to(compiler.find_compiler(), library, *FLAGS, *PATHS[path])
    return str(library), {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python and PyTorch keep what they have until the end
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


@pytest.mark.parametrize("path", PATHS)
def test_no_wrong_address_and_no_undefined_operation(folder, path):
    library, environment = sanitized(folder, path)
    command = [sys.executable, "-m", "tests.unit.kernels.cpu.sanitized_rounds", library, str(SECONDS)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60 * 20)
    assert done.returncode == 0, done.stderr[-6000:]
    assert int(done.stdout.split()[-2]) >= 5


def test_a_wrong_address_would_be_found(folder):
    library, environment = sanitized(folder, "portable")
    code = (
        "import sys, numpy; from pathlib import Path\n"
        "from rapid_integrations.kernels.cpu.interface import opened\n"
        "small = numpy.ones(100, dtype=numpy.float32)\n"
        "opened(Path(sys.argv[1])).rapid_softmax(small.ctypes.data, 200, 1.0, small.ctypes.data)\n"
    )
    command = [sys.executable, "-c", code, library]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr
