"""What the machine is, and what fits into its memory."""

from __future__ import annotations

import os
import shutil
import subprocess

import torch

from benchmarks.gpu_stages import DEVICE, DRY, HEAD_DIM, KV_HEADS, LAYERS, Say
from benchmarks.gpu_stages.model import random_lm
from benchmarks.gpu_stages.timing import ms
from rapid_integrations.kernels.cuda import why_not_cuda


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
    say(gpu=device.name, sms=device.multi_processor_count, torch=torch.__version__, triton=_triton())
    smi = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"]
    say(
        why_no_kernels=why_not_cuda(torch.device(DEVICE)),
        l2=device.L2_cache_size,
        shared_memory=getattr(device, "shared_memory_per_block_optin", None),
        free=torch.cuda.mem_get_info()[0],
        cudnn=torch.backends.cudnn.version(),
        transformers=transformers.__version__,
        smi=subprocess.run([*smi, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip(),
        cpus=os.cpu_count(),
        compiler=shutil.which("gcc") or shutil.which("clang"),
    )


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return "none"
    return str(triton.__version__)


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
