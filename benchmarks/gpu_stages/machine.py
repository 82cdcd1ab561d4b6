"""What the machine is, whether answers are right on it, and what fits into its memory."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import torch

from benchmarks.gpu_stages import DEVICE, DRY, HEAD_DIM, KV_HEADS, LAYERS, ROOT, SWITCH, Say
from benchmarks.gpu_stages.model import random_lm
from benchmarks.gpu_stages.timing import ms


def env(say: Say) -> None:
    """Versions, and the ceilings: what is copied and multiplied in a second, on numbers that cannot be compressed."""
    if not DRY:
        _versions(say)
    source = torch.randint(0, 2**62, (2**12 if DRY else 2**28,), dtype=torch.int64, device=DEVICE)
    copy = torch.empty_like(source)
    size = 64 if DRY else 8192
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    say(
        copy_tb_per_s=2 * source.nbytes / ms(lambda i: copy.copy_(source)) / 1e9,
        read_tb_per_s=source.nbytes / ms(lambda i: source.sum()) / 1e9,
        bf16_tflops=2 * size**3 / ms(lambda i: a @ b) / 1e9,
    )


def _versions(say: Say) -> None:
    import transformers

    device = torch.cuda.get_device_properties(0)
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"]
    say(
        gpu=device.name,
        sms=device.multi_processor_count,
        l2=device.L2_cache_size,
        free=torch.cuda.mem_get_info()[0],
        torch=torch.__version__,
        cudnn=torch.backends.cudnn.version(),
        triton=_triton(),
        transformers=transformers.__version__,
        sdpa_order=str(torch._C._get_sdp_priority_order()),
        smi=subprocess.run([*smi, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip(),
        cpus=os.cpu_count(),
    )


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return "none"
    return str(triton.__version__)


def correctness(say: Say) -> None:
    """tests/gpu and what else is marked gpu; without the project's pytest settings, whose plugins are not there."""
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir=.", "-p", "no:cacheprovider", "-q", "-rfEx"]
    command += ["-m", "gpu", "--maxfail=25", "tests/gpu", "tests/laws/test_enumeration.py"]
    if importlib.util.find_spec("pytest_timeout") is not None:
        command.append("--timeout=60")
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    surroundings.pop(SWITCH, None)
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, cwd=ROOT)
    say(exit=done.returncode, tail=done.stdout[-6000:], errors=done.stderr[-2000:])


def memory(say: Say) -> None:
    """Whether a kept prefix of 120K tokens fits what "auto" allows, alone and beside an int4 drafter."""
    from rapid_integrations.cache.memory_budget import memory_budget

    device = torch.device(DEVICE)
    needed = 2 * KV_HEADS * HEAD_DIM * 2 * LAYERS * 123_392
    target = random_lm()
    alone = memory_budget("auto", [device])
    drafter = random_lm("int4")
    both = memory_budget("auto", [device])
    say(needed_gb=needed / 1e9, auto_alone_gb=alone / 1e9, auto_beside_int4_gb=both / 1e9)
    say(kept_alone=alone >= needed, kept_beside_int4=both >= needed, held_gb=torch.cuda.memory_allocated() / 1e9)
    target.close(), drafter.close()
