"""The wheel: built once, it brings kernels and every data file to an environment that has no compiler."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from rapid_integrations.kernels.cpu.variants import processor_features, variants

ROOT = Path(__file__).parents[2]
PACKAGES = ("rapid_integrations", "llama_index_rapid", "langchain_rapid")

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not variants(), reason="no kernels for this processor"),
]
pytest.importorskip("scikit_build_core", reason="what builds the wheel: pip install -e '.[dev]'")


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def wheel_of(folder, *settings, **options):
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    run([*pip, *(f"-C{setting}" for setting in settings), str(ROOT)], **options)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder, wheel):
    """Return the Python of an environment with the wheel, what it depends on, and nothing else on PATH."""
    venv.create(folder)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)])
    # Behind its own packages; a folder that is named here brings no finder of an editable installation with it.
    (packages / "dependencies.pth").write_text("\n".join(part for part in sys.path if part.endswith("-packages")))
    return python


_ASKED = """
import json, shutil
import rapid_integrations
from rapid_integrations.kernels.cpu import native_library, native_variant, why_not_native
native_library()
compilers = list(filter(shutil.which, ("c++", "g++", "clang++")))
print(json.dumps([rapid_integrations.__file__, native_variant(), why_not_native(), compilers]))
"""


def asked(python, tmp_path):
    bare = {
        "PATH": str(python.parent),
        "HOME": str(tmp_path),
        "RAPID_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    lines = run([python, "-c", _ASKED], env=bare, cwd=tmp_path).strip().splitlines()
    return json.loads(lines[-1])


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_wheel_brings_kernels_and_every_file(tmp_path, whole):
    """In one test, since building it is what takes the time: by day for this processor only, and not optimised."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    best = next((each for each in variants() if each.needs <= processor_features()), variants()[-1])
    wanted = variants() if whole else (best,)
    names, effort = ";".join(each.name for each in wanted), "Release" if whole else "Debug"
    settings = (f"cmake.define.RAPID_VARIANTS={names}", f"cmake.build-type={effort}")
    wheel = wheel_of(tmp_path / "wheel", "cmake.define.CMAKE_COMPILE_WARNING_AS_ERROR=ON", *settings)
    assert wheel.name.split("-")[2:4] == ["py3", "none"] and not wheel.name.endswith("-any.whl")

    tracked = run(["git", "ls-files", *PACKAGES], cwd=ROOT).split()
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    built = {str(variant.path.relative_to(ROOT)) for variant in wanted}
    assert {f"{package}/py.typed" for package in PACKAGES} <= there
    assert any(name.endswith(".jinja") for name in there)
    assert there == {name for name in tracked if (ROOT / name).exists()} | built

    file, variant, reason, compilers = asked(environment(tmp_path / "venv", wheel), tmp_path)
    assert Path(file).is_relative_to(tmp_path) and compilers == []
    assert variant == (best.name if best.needs <= processor_features() else "")
    assert (variant == "") == (reason != "")


def test_without_a_compiler_the_package_installs_and_says_what_it_lacks(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "ninja"):  # which pip would bring
        if (found := shutil.which(name)) is None:
            pytest.skip(f"no {name}")
        (tools / name).symlink_to(found)
    folder = tmp_path / "wheel"
    without = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC")}
    made = wheel_of(folder, env={**without, "PATH": str(tools)})
    assert made.name.endswith("-py3-none-any.whl")
    file, variant, reason, compilers = asked(environment(tmp_path / "venv", made), tmp_path)
    assert Path(file).is_relative_to(tmp_path) and variant == "" and compilers == []
    assert reason.startswith("the package was installed where there was no C++ compiler to build its kernels")
