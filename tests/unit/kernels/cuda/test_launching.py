"""Every launch of a step of eight billion parameters compiles for GPUs that nobody has here."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.toys.repository import ROOT

STEP = {"_embed", "_add_norm", "_rotate", "_partial", "_combine", "_gate", "_int8", "_int4"}
LAWS = {"_sums", "_moves", "_pick", "_search", "_mix", "_law", "_scale"}
VERDICTS = {"_accept", "_left", "_choose", "_weigh", "_draw"}
ON_TENSOR_CORES = {"_partial", "_int8", "_int4"}


@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed: make test-triton")
@pytest.mark.parametrize("capability", [80, 90])
def test_every_launch_compiles_without_a_spilled_register(capability, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.unit.kernels.cuda.compiled_kernels", str(capability)]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert {each["kernel"] for each in found} == STEP | LAWS | VERDICTS
    for each in found:
        # Registers that do not suffice are kept in memory. One draw for a request may do so.
        assert each["stack"] <= (0 if each["kernel"] in STEP else 16), each
        assert each["products"] == (each["kernel"] in ON_TENSOR_CORES), each
        assert each["shared"] <= 100 << 10, each
