"""Of the libraries that a wheel brings the best is loaded that the processor can run."""

import ctypes
import logging
import platform
import re
import shutil
import sys
import tomllib

import pytest
import torch

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import compiler, interface, library, variants
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import model

pytestmark = pytest.mark.skipif(
    native.native_library() is None or platform.machine() != "x86_64", reason="no compiler, or another processor"
)
NAMES = ["avx512_bf16", "avx512_vnni", "avx2_vnni", "avx2"]
ROOT = interface.FOLDER.parents[2]
# AT_HWCAP and AT_HWCAP2 of processors, as Linux gives them to a process.
CORTEX_A72, NEOVERSE_N1, NEOVERSE_V1 = (0x8FB, 0), (0x119FFB, 0), (0x119FFB, 0x6000)


@pytest.fixture
def installed(fresh_process, monkeypatch):
    """A process with the package as a wheel brings it; each variant is the library of this machine."""
    built = fresh_process / "built"
    built.mkdir()
    monkeypatch.setattr(variants, "BUILT", built)
    monkeypatch.setattr(library, "is_checkout", lambda: False)
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    for variant in variants.variants():
        shutil.copy(fresh_process / "compiled.so", variant.path)
    return built


def processor(monkeypatch, *, lacks=()):
    features = frozenset().union(*(variant.needs for variant in variants.variants())) - set(lacks)
    monkeypatch.setattr(library, "processor_features", lambda: features)


@pytest.mark.parametrize(
    ("lacks", "chosen"),
    [
        ((), "avx512_bf16"),
        (("avx512bf16",), "avx512_vnni"),
        (("avx512vnni",), "avx2_vnni"),
        (("avx512vl",), "avx2_vnni"),
        (("avx512vnni", "avxvnni"), "avx2"),
        (("avx512bf16", "avx512f", "avxvnni"), "avx2"),
    ],
)
def test_the_best_that_the_processor_can_run(installed, monkeypatch, lacks, chosen):
    processor(monkeypatch, lacks=lacks)
    assert native.native_library()._name == str(installed / f"kernels-{chosen}.so")
    assert native.native_variant() == chosen and native.why_not_native() == ""
    assert HuggingFaceLM(model(), take_over=True).kernels == chosen


def test_none_that_the_processor_cannot_run(installed, monkeypatch, caplog):
    processor(monkeypatch, lacks=("avx2",))
    with caplog.at_level(logging.WARNING):
        assert native.native_library() is None and native.native_library() is None
    assert "avx2 needs a processor with avx2" in native.why_not_native()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "2.5 times slower" in warning
    assert "pip install ziglang && python -m rapid_integrations.kernels.cpu" in warning


def test_a_library_of_other_sources_gives_way_to_the_next(installed, monkeypatch):
    processor(monkeypatch)
    shutil.copy(shutil.which("true"), installed / "kernels-avx512_bf16.so")  # what is no library
    assert native.native_variant() == "avx512_vnni"


def test_installed_without_kernels(installed, monkeypatch):
    shutil.rmtree(installed)
    lm = HuggingFaceLM(model(), take_over=True)
    assert lm.kernels.startswith("none (the package was installed where there was no C++ compiler")
    monkeypatch.setattr(compiler, "find_compiler", lambda: ("c++",))
    assert compiler.how_to_compile() == "python -m rapid_integrations.kernels.cpu"


def test_the_switch_compiles_whatever_the_wheel_brought(installed, monkeypatch, fresh_process):
    monkeypatch.setenv("RAPID_NATIVE", "build")
    monkeypatch.setattr(compiler, "find_compiler", lambda: (shutil.which("c++"),))
    assert native.native_library()._name.startswith(str(fresh_process / "home"))
    assert native.native_variant() == "compiled"


def test_the_command_compiles_for_later_processes(installed, monkeypatch, capsys, fresh_process):
    from rapid_integrations.kernels.cpu.__main__ import main

    shutil.rmtree(installed)
    assert main() == 1 and "pip install ziglang" in capsys.readouterr().err
    monkeypatch.setattr(compiler, "find_compiler", lambda: (shutil.which("c++"),))
    assert main() == 0
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    assert capsys.readouterr().out.strip() == native.native_library()._name
    assert native.native_variant() == "compiled"


@pytest.fixture
def arm64(monkeypatch):
    """An arm64 machine whose system says nothing but what `told` is given."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(variants, "processor_description", lambda *keys: "")
    monkeypatch.setattr(variants.torch.cpu, "get_capabilities", dict, raising=False)

    def told(**functions):
        class System:
            def __init__(self, name):
                vars(self).update({name: staticmethod(each).__func__ for name, each in functions.items()})

        monkeypatch.setattr(variants.ctypes, "CDLL", System)
        variants.processor_features.cache_clear()
        return [each.name for each in variants.variants() if each.needs <= variants.processor_features()]

    yield told
    variants.processor_features.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="the auxiliary vector is Linux's")
@pytest.mark.parametrize(
    ("processor", "can_run"),
    [
        (CORTEX_A72, ["neon"]),
        (NEOVERSE_N1, ["neon_dot", "neon"]),
        (NEOVERSE_V1, ["neon_bf16", "neon_dot", "neon"]),
        ((NEOVERSE_V1[0], 1 << 14), ["neon_dot", "neon"]),  # bfloat16 without the products of bytes
    ],
)
def test_linux_says_what_an_arm64_processor_can_do(arm64, processor, can_run):
    def getauxval(kind):
        return {16: processor[0], 26: processor[1]}[kind]

    assert arm64(getauxval=getauxval) == can_run


@pytest.mark.parametrize(
    ("features", "can_run"),
    [
        ({"FEAT_DotProd"}, ["neon_dot", "neon"]),  # M1
        ({"FEAT_DotProd", "FEAT_BF16", "FEAT_I8MM"}, ["neon_bf16", "neon_dot", "neon"]),  # M2
    ],
)
def test_macos_says_what_an_arm64_processor_can_do(arm64, monkeypatch, features, can_run):
    def sysctlbyname(name, value, size, *nothing):
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int32))[0] = 1
        return 0 if name.decode().removeprefix("hw.optional.arm.") in features else -1

    monkeypatch.setattr(variants.sys, "platform", "darwin")
    assert arm64(sysctlbyname=sysctlbyname) == can_run


def test_wheels_are_built_for_every_kind_of_processor_that_has_kernels():
    """Each of cibuildwheel's machines is one of CMakeLists.txt's, and together they get all variants."""
    wheels = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    machines = {system: wheels[system]["archs"] for system in ("linux", "macos", "windows")}
    assert machines == {"linux": ["x86_64", "aarch64"], "macos": ["arm64"], "windows": ["AMD64"]}
    cmake = (ROOT / "CMakeLists.txt").read_text()
    branches = re.findall(r'if\(PROCESSOR MATCHES "(.*)"\)\n  set\(VARIANTS ([a-z0-9_ ]*)\)', cmake)
    assert len(branches) == 2
    built = set()
    for machine in (each for archs in machines.values() for each in archs):
        (names,) = [names.split() for pattern, names in branches if re.match(pattern, machine)]
        kind = variants._MACHINES[machine.lower()]
        assert set(names) == {variant.name for variant in variants._VARIANTS[kind]}
        built.add(kind)
    assert built == variants._VARIANTS.keys()


def test_cmake_builds_the_variants_that_python_knows():
    text = (ROOT / "CMakeLists.txt").read_text()
    built = {name for line in re.findall(r"set\(VARIANTS ([a-z0-9_ ]*)\)", text) for name in line.split()}
    assert built == {variant.name for each in variants._VARIANTS.values() for variant in each}
    assert [variant.name for variant in variants.variants()] == NAMES


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this PyTorch does not tell")
def test_pytorch_tells_what_the_processor_can_do_where_linux_does_not(monkeypatch):
    told = variants.processor_features()
    variants.processor_features.cache_clear()
    monkeypatch.setattr(variants, "processor_description", lambda *keys: "")
    try:
        asked = variants.processor_features()
    finally:
        variants.processor_features.cache_clear()
    for variant in variants.variants():
        assert (variant.needs <= asked) == (variant.needs <= told)
