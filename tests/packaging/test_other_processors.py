"""The kernels of other processors compute the numbers of this one's.

Those of older x86-64 run here, and those of arm64 and of Windows, built by a compiler for them, in an emulator.
elsewhere.cpp calls them. They need, on Debian, `apt install g++-aarch64-linux-gnu qemu-user-static`, and for Windows
`pip install ziglang` and `apt install wine wine64 g++-mingw-w64-x86-64-posix`.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import variants
from rapid_integrations.kernels.cpu.interface import FOLDER, SOURCES, sources_key

KERNELS = native.native_library()
pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(KERNELS is None or not KERNELS.rapid_fast_path(), reason="nothing to compare with"),
]
DRIVER = FOLDER.parents[2] / "tests/packaging/elsewhere.cpp"
SYSROOT = "/usr/aarch64-linux-gnu"  # Debian's
COMMON = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Werror")
# Each has what the variant needs, and of the first two nothing that a better one needs.
PROCESSORS = {"neon": "cortex-a72", "neon_dot": "neoverse-n1", "neon_bf16": "max"}
# What has no product of bfloat16 in it, and no function of a C library. Without BFDOT all bits are those of x86-64.
EXACT = re.compile(r"(product|unpacked|rows|best|blocks|drawn|sum|gate 3)\b(?! bf16)")


def flags_of(variant):
    text = (FOLDER.parents[2] / "CMakeLists.txt").read_text()
    return re.search(rf"set\(FLAGS_{variant} (.*)\)", text)[1].split()


def run(command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=3000, **options)


def built(compiler, target, *flags):
    done = run([*compiler, *flags, "-o", target])
    assert done.returncode == 0, done.stderr[-4000:]
    return target


def results(path):
    data, found, start = path.read_bytes(), {}, 0
    while start < len(data):
        end = data.index(b"\n", start)
        name, count = data[start:end].decode().rsplit(" ", 1)
        start = end + 1 + 4 * int(count)
        found[name] = np.frombuffer(data[end + 1 : start], dtype=np.float32)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def expected(folder):
    """What this machine's own kernels compute."""
    if (compiler := shutil.which("c++")) is None:
        pytest.skip("no C++ compiler")
    driver = built([compiler], folder / "own", "-O1", "-std=c++17", "-I", FOLDER, DRIVER, "-ldl")
    done = run([driver, KERNELS._name, folder / "own.results"])
    assert done.returncode == 0, done.stderr
    return results(folder / "own.results")


def compare(found, expected, exact):
    assert found.keys() == expected.keys() and len(found) > 60
    for name, values in found.items():
        wanted = expected[name]
        assert np.isfinite(values).all() and wanted.any(), name
        if exact.match(name):
            assert values.tobytes() == wanted.tobytes(), name
        error = np.linalg.norm(values.astype(float) - wanted) / np.linalg.norm(wanted.astype(float))
        # A step's rows are rounded to eight bits or to bfloat16 on their way: a last bit that differs may move a level.
        # Attention's weights are rounded to bfloat16 on some processors.
        assert error < (1e-2 if "step" in name else 4e-3 if "attention" in name else 1e-3), (name, error)


@pytest.mark.parametrize("variant", ["avx512_vnni", "avx2_vnni", "avx2"])
def test_older_processors_compute_the_numbers_of_this_one(folder, expected, variant):
    needs = next((each.needs for each in variants.variants() if each.name == variant), None)
    if needs is None or not needs <= variants.processor_features():
        pytest.skip(f"this processor does not run {variant}")
    key = f'-DRAPID_SOURCES="{sources_key()}"'
    library = folder / f"kernels-{variant}.so"
    built(["c++"], library, *COMMON, "-shared", "-fPIC", "-pthread", *flags_of(variant), key, *SOURCES)
    done = run([folder / "own", library, folder / variant])
    assert done.returncode == 0, done.stderr
    # What this machine is built for on the spot has the same instructions; others attend with other numbers.
    best = next(each.name for each in variants.variants() if each.needs <= variants.processor_features())
    same = variant == best and not KERNELS.rapid_uses_amx()
    compare(results(folder / variant), expected, re.compile("") if same else EXACT)


@pytest.fixture(scope="module")
def arm(folder):
    """Return a compiler for arm64, an emulator, and the driver."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not compiler or not emulator:
        pytest.skip("no compiler for arm64, or no emulator")
    return compiler, emulator, built([compiler], folder / "arm", "-O1", "-std=c++17", "-I", FOLDER, DRIVER, "-ldl")


@pytest.mark.parametrize("variant", PROCESSORS)
def test_arm64_computes_the_numbers_of_x86(folder, expected, arm, variant):
    compiler, emulator, driver = arm
    key = f'-DRAPID_SOURCES="{sources_key()}"'
    library = folder / f"kernels-{variant}.so"
    built([compiler], library, *COMMON, "-shared", "-fPIC", "-pthread", *flags_of(variant), key, *SOURCES)

    def ran_on(processor, out):
        return run([emulator, "-L", SYSROOT, "-cpu", processor, driver, library, folder / out])

    done = ran_on(PROCESSORS[variant], variant)
    assert done.returncode == 0, done.stderr
    compare(results(folder / variant), expected, EXACT if variant == "neon_bf16" else re.compile(""))
    if variant != "neon":  # the emulator has no instruction that the processor has not
        assert ran_on(PROCESSORS["neon"], "nothing").returncode not in (0, 1, 2)


def test_windows_computes_the_numbers_of_linux(folder, expected):
    wine = shutil.which("wine64") or shutil.which("wine") or shutil.which("/usr/lib/wine/wine64")
    mingw = shutil.which("x86_64-w64-mingw32-g++") or shutil.which("x86_64-w64-mingw32-g++-posix")
    if importlib.util.find_spec("ziglang") is None or wine is None or mingw is None:
        pytest.skip("no compilers for Windows, or no Wine")
    zig = [sys.executable, "-m", "ziglang", "c++", "-target", "x86_64-windows-gnu"]
    key = f'-DRAPID_SOURCES="{sources_key()}"'
    library = folder / "kernels-avx512_bf16.dll"
    built(zig, library, *COMMON, "-shared", *flags_of("avx512_bf16"), key, *SOURCES)
    driver = built([mingw], folder / "driver.exe", "-O0", "-std=c++17", "-static", "-I", FOLDER, DRIVER)
    environment = {**os.environ, "WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all"}
    done = run([wine, driver.name, library.name, "windows"], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    compare(results(folder / "windows"), expected, EXACT)
