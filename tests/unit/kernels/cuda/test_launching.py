"""Every launch of a step compiles for GPUs that nobody has here: what the interpreter does not see."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.toys.repository import ROOT

STEP = {"_embed", "_add_norm", "_rotate", "_partial", "_combine", "_gate"}
PRODUCTS = {"_int8", "_int4"}
LAWS = {"_sums", "_moves", "_pick", "_search", "_mix", "_law", "_scale"}
VERDICTS = {"_accept", "_left", "_choose", "_weigh", "_draw"}
ON_TENSOR_CORES = {"_partial", *PRODUCTS}
MOST_SHARED = 99 << 10  # bytes that a block may have on GPUs of capability 8.6, 8.9 and 12.0; others have more
OTHERS = [
    *("llama-3.1-70b", "smollm2-135m", "qwen2.5-0.5b", "phi-2", "phi-3-mini", "gemma-2-2b", "gemma-3-1b", "half"),
    *("single", "single, wide heads", "tiny"),
]

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: make test-triton"),
]


def compiled(capability, folder, *names):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder)}
    command = [sys.executable, "-m", "tests.unit.kernels.cuda.compiled_kernels", str(capability), *names]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    found = [json.loads(line) for line in told.stdout.splitlines()]
    for each in found:
        assert each["shared"] <= MOST_SHARED, each
    return found


@pytest.mark.parametrize("capability", [80, 90])
def test_every_launch_compiles_without_a_spilled_register(capability, tmp_path):
    found = compiled(capability, tmp_path, "llama-3.1-8b", "quantised", "laws")
    assert {each["kernel"] for each in found} == STEP | PRODUCTS | LAWS | VERDICTS
    for each in found:
        # Registers that do not suffice are kept in memory. One draw for a request may do so.
        assert each["stack"] <= (0 if each["kernel"] in STEP | PRODUCTS else 16), each
        assert each["products"] == (each["kernel"] in ON_TENSOR_CORES), each
        assert each["wide"] or each["kernel"] not in ON_TENSOR_CORES, each  # sixteen bytes at once


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("shape", OTHERS)
def test_other_sizes_and_dtypes_compile_for_any_gpu(capability, shape, tmp_path):
    for each in compiled(capability, tmp_path, shape):
        assert each["kernel"] in STEP and each["stack"] <= (4096 if "single" in shape else 0), each


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_form_that_some_family_has_compiles(capability, tmp_path):
    """Activations, norms, rotations and sights: the interpreter has them of NumPy, and a GPU of its own libraries."""
    found = compiled(capability, tmp_path, "variants")
    assert {each["kernel"] for each in found} == STEP - {"_embed"}
    assert all(each["stack"] == 0 for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_quantised_products_in_half_precision_compile(capability, tmp_path):
    assert all(each["stack"] == 0 for each in compiled(capability, tmp_path, "quantised half"))
