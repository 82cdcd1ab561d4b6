"""Compiles every kernel as it is launched for a model of eight billion parameters, without a GPU.

    python -m tests.unit.kernels.cuda.compiled_kernels 80

prints a line of JSON for each: its registers, the bytes that it spills to the stack, and its shared memory.
"""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.kernels.cuda import law, products, steps, verdicts
from rapid_integrations.kernels.cuda.launching import dtype_of
from rapid_integrations.kernels.cuda.step_layer import StepLayer, StepModel
from rapid_integrations.kernels.layers import AttentionKind, Norm, Rope

HIDDEN, INNER, HEADS, KV_HEADS, DIM = 4096, 14336, 32, 8, 128
TYPES = {torch.int64: "i64", torch.int8: "i8", torch.uint8: "u8", torch.int32: "i32", torch.float64: "fp64"}


def launches_of(run):
    """Return the kernels that `run` launches, with their arguments, without running them."""
    launches = []

    def record(self, *arguments, grid, warmup, **options):
        launches.append((self, arguments, options))

    own, JITFunction.run = JITFunction.run, record
    try:
        run()
    finally:
        JITFunction.run = own
    return launches


def type_of(value):
    if isinstance(value, torch.Tensor):
        return "*" + (TYPES.get(value.dtype) or str(dtype_of(value)))
    if isinstance(value, int):
        return "i32" if abs(value) < 1 << 31 else "i64"
    return "fp32"


def compiled(kernel, arguments, options, capability):
    names = kernel.arg_names
    given = dict(zip(names, arguments, strict=False)) | {name: options[name] for name in names if name in options}
    constants = {
        name: value for name, value in given.items() if "constexpr" in str(inspect.get_annotations(kernel.fn).get(name))
    }
    signature = {name: "constexpr" if name in constants else type_of(given[name]) for name in names}
    aligned = {
        (index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if signature[name].startswith("*")
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    others = {name: value for name, value in options.items() if name not in names}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=others)


def resources(kernel):
    """Return registers of a thread and bytes of its stack, as NVIDIA's tool reads them from the binary."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {name.lower(): int(re.search(rf"{name}:(\d+)", told)[1]) for name in ("REG", "STACK")}


def step():
    """Do a step of one layer; its products give nothing, as none of the kernels runs."""
    dtype = torch.bfloat16

    def product(width):
        return lambda x: torch.zeros(len(x), width, dtype=dtype)

    norm, of_heads = Norm(torch.ones(HIDDEN, dtype=dtype), 1e-5), Norm(torch.ones(DIM, dtype=dtype), 1e-5)
    sinks = AttentionKind(softcap=50.0, sinks=torch.zeros(HEADS))
    layers = [
        StepLayer(
            product((HEADS + 2 * KV_HEADS) * DIM),
            product(HIDDEN),
            product(2 * INNER),
            product(INNER),
            norm,
            norm,
            Rope(0, DIM // 2),
            DIM**-0.5,
            **more,
        )
        for more in ({}, {"query": of_heads, "key": of_heads, "window": 4096, "kind": sinks})
    ]
    model = StepModel(
        layers, torch.zeros(9, HIDDEN, dtype=dtype), norm, product(9), HEADS, KV_HEADS, DIM, pairs=DIM // 2
    )
    runner = steps.GraphSteps(model, tile_rows=64)
    cache = KVCache(len(layers), 64)
    for layer in range(len(layers)):
        cache.write(layer, *torch.zeros(2, 1, KV_HEADS, 1, DIM, dtype=dtype))
    runner.forward([Rows(torch.tensor([0]), cache, 1)], [(torch.zeros(2, DIM // 2),) * 2])


def quantised():
    for rows in (32, 256):
        for outputs in (1024, 4096, 28672):
            x = torch.zeros(rows, 64, dtype=torch.bfloat16)
            scales = torch.zeros(outputs, 2, dtype=torch.bfloat16)
            products.int8_product(x, torch.zeros(outputs, 64, dtype=torch.int8), scales[:, 0].contiguous(), None)
            packed = torch.zeros(outputs, 32, dtype=torch.uint8)
            products.int4_product(x, packed, scales, scales, None)


def laws():
    """Form and verify laws over a vocabulary of 128,256 tokens."""
    z = torch.zeros(9, 128256)
    tokens, uniforms = torch.zeros(1, 8, dtype=torch.int64), torch.zeros(1, 10, dtype=torch.float64)
    for rule in ("mask", "restore"):
        law.p_hat_rows(z, z, 1.0, eta="auto", tail_rule=rule)
    for proposed in (z[None, :8], None):
        verdicts.verify_rounds(z[None], tokens, proposed, uniforms)


def main():
    capability = int(sys.argv[1])
    seen = set()
    for kernel, arguments, options in [each for run in (step, quantised, laws) for each in launches_of(run)]:
        constants = {name: str(value) for name, value in options.items()}
        if (key := (kernel.fn.__name__, str(constants), str(list(map(type_of, arguments))))) in seen:
            continue
        seen.add(key)
        binary = compiled(kernel, arguments, options, capability)
        told = {"kernel": kernel.fn.__name__, "shared": binary.metadata.shared, **resources(binary)}
        told["products"] = "mma" in binary.asm["ptx"]
        print(json.dumps(told | {"constants": constants}), flush=True)


if __name__ == "__main__":
    main()
