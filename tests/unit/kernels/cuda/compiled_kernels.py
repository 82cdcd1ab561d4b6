"""Compiles every kernel as it is launched for models of some sizes, without a GPU.

    python -m tests.unit.kernels.cuda.compiled_kernels 80 llama-3.1-8b laws

prints a line of JSON for each: its registers, the bytes that it spills to the stack, its shared memory, and how many
instructions read sixteen bytes at once.
"""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.kernels.cuda import attention, gate, law, norms, products, rotary, steps, verdicts
from rapid_integrations.kernels.cuda.launching import dtype_of
from rapid_integrations.kernels.cuda.step_layer import StepLayer, StepModel
from rapid_integrations.kernels.layers import AttentionKind, Norm, Rope
from tests.unit.kernels.cuda.places_of import HEADS, KV_HEADS, cache_of, places_for


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, as `StepModel` and its layers have them."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    dim: int
    dtype: torch.dtype = torch.bfloat16
    pairs: int | None = None  # of a head that are rotated; None: all


SHAPES = {
    "llama-3.1-8b": Shape(4096, 14336, 32, 8, 128),
    "llama-3.1-70b": Shape(8192, 28672, 64, 8, 128),
    "smollm2-135m": Shape(576, 1536, 9, 3, 64),
    "qwen2.5-0.5b": Shape(896, 4864, 14, 2, 64),
    "phi-2": Shape(2560, 10240, 32, 32, 80, pairs=16),
    "phi-3-mini": Shape(3072, 8192, 32, 32, 96),
    "gemma-2-2b": Shape(2304, 9216, 8, 4, 256),
    "gemma-3-1b": Shape(1152, 6912, 4, 1, 256),
    "half": Shape(4096, 14336, 32, 8, 128, torch.float16),
    "single": Shape(1024, 4096, 16, 4, 128, torch.float32),
    "single, wide heads": Shape(1152, 6912, 4, 1, 256, torch.float32),
    "tiny": Shape(32, 48, 4, 2, 8, torch.float32),
}
WIDE = re.compile(
    r"cp\.async\.c[ag]\.shared\.global[^;]*, 16;|cp\.async\.c[ag]\.shared\.global[^;]*, 0x10|"
    r"ld\.global(?:\.\w+)*\.v4\.b32|ld\.global(?:\.\w+)*\.v2\.b64"
)
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
    # As Triton does it at a launch: a 1 is a constant, and of other numbers it is known whether 16 divides them.
    special = {each.name for each in kernel.params if not each.do_not_specialize and isinstance(given[each.name], int)}
    constants |= {name: 1 for name in special if name not in constants and given[name] == 1}
    signature = {name: "constexpr" if name in constants else type_of(given[name]) for name in names}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if signature[name].startswith("*") or (name in special - constants.keys() and given[name] % 16 == 0)
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


def step(shape):
    """Do a step of two layers; its products give nothing, as none of the kernels runs."""
    dtype, dim = shape.dtype, shape.dim

    def product(width):
        return lambda x: torch.zeros(len(x), width, dtype=dtype)

    norm, of_heads = Norm(torch.ones(shape.hidden, dtype=dtype), 1e-5), Norm(torch.ones(dim, dtype=dtype), 1e-5)
    sinks = AttentionKind(softcap=50.0, sinks=torch.zeros(shape.heads))
    pairs = shape.pairs or dim // 2
    layers = [
        StepLayer(
            product((shape.heads + 2 * shape.kv_heads) * dim),
            product(shape.hidden),
            product(2 * shape.inner),
            product(shape.inner),
            norm,
            norm,
            Rope(0, pairs),
            dim**-0.5,
            **more,
        )
        for more in ({}, {"query": of_heads, "key": of_heads, "window": 4096, "kind": sinks})
    ]
    table = torch.zeros(9, shape.hidden, dtype=dtype)
    model = StepModel(layers, table, norm, product(9), shape.heads, shape.kv_heads, dim, pairs=pairs)
    runner = steps.GraphSteps(model, tile_rows=64)
    cache = KVCache(len(layers), 64)
    for layer in range(len(layers)):
        cache.write(layer, *torch.zeros(2, 1, shape.kv_heads, 1, dim, dtype=dtype))
    runner.forward([Rows(torch.tensor([0]), cache, 1)], [(torch.zeros(2, pairs),) * 2])


def variants():
    """Launch every form of the kernels that some family has, in bfloat16."""
    dtype, rows, width, dim = torch.bfloat16, 32, 512, 64
    x, vector, of_head = torch.zeros(rows, width, dtype=dtype), torch.zeros(width, dtype=dtype), torch.ones(dim)
    for activation in gate.ACTIVATIONS:
        for gated in (True, False):
            gate.gate(x, activation, gated)
    whole = [Norm(vector, 1e-5), Norm(vector, 1e-5, bias=vector, centred=True), Norm(vector, 1e-5, offset=1.0)]
    for norm in (*whole, Norm(None, 1e-5), Norm(None, 1e-5, centred=True), None):
        for more in (x, None):
            norms.add_norm(x, more, 0.5, norm, x)
    cache = cache_of(70, dtype=dtype, dim=dim)
    places = places_for([Rows(torch.arange(2), cache, 2, parents=(-1, -1))], dim=dim)
    own = [torch.ones(count * dim, dtype=dtype) for count in (HEADS, KV_HEADS)]
    of_heads = [
        (None, None),
        *((Norm(of_head, 1e-5, **more),) * 2 for more in ({}, {"bias": of_head}, {"offset": 1.0})),
        (Norm(None, 1e-5, centred=True), Norm(None, 1e-5, centred=True)),
        tuple(Norm(each, 1e-5, scope="own head") for each in own),
        tuple(Norm(each, 1e-5, scope="all heads") for each in own),
    ]
    qkv = torch.zeros(rows, (HEADS + 2 * KV_HEADS) * dim, dtype=dtype)
    for pair in of_heads:
        for rope in (Rope(0, dim // 2), Rope(3, 5), Rope(0, 8, interleaved=True), Rope()):
            rotary.rotate_and_write(qkv, places, 1, pair, rope, HEADS, KV_HEADS, 40)
        if pair[0] is not None and pair[0].scope != "all heads":
            behind = Rope(0, dim // 2, norm_behind=True)
            rotary.rotate_and_write(qkv, places, 1, pair, behind, HEADS, KV_HEADS, 40)
    mixed, log_sums = torch.zeros(rows, HEADS, 2, dim), torch.zeros(rows, HEADS, 2)
    out = torch.zeros(rows, HEADS * dim, dtype=dtype)
    for kind in (AttentionKind(), AttentionKind(chunk=96), AttentionKind(sinks=torch.zeros(HEADS))):
        for window in (None, 40):
            sight = (1.0, window, kind, HEADS, KV_HEADS)
            attention.attend(qkv, places, 1, *sight, mixed, log_sums, out, tile_rows=64, programs=4)


def quantised(dtype=torch.bfloat16):
    for rows in (32, 256):
        for outputs in (1024, 4096, 28672):
            x = torch.zeros(rows, 64, dtype=dtype)
            scales = torch.zeros(outputs, 2, dtype=dtype)
            products.int8_product(x, torch.zeros(outputs, 64, dtype=torch.int8), scales[:, 0].contiguous(), None)
            packed = torch.zeros(outputs, 32, dtype=torch.uint8)
            products.int4_product(x, packed, scales, scales, None)


def laws():
    """Form and verify laws over the vocabularies of SmolLM2, Llama 3.1, Qwen 2.5 and Gemma 3, and a tiny one."""
    for width in (49_152, 128_256, 152_064, 262_144, 260):
        z = torch.zeros(9, width)
        tokens, uniforms = torch.zeros(1, 8, dtype=torch.int64), torch.zeros(1, 10, dtype=torch.float64)
        for rule in ("mask", "restore"):
            law.p_hat_rows(z, z, 1.0, eta="auto", tail_rule=rule)
        for proposed in (z[None, :8], None):
            verdicts.verify_rounds(z[None], tokens, proposed, uniforms)


def runs_of(names):
    """Yield what launches the kernels of some names: those of `SHAPES`, or of the functions here."""
    others = {"quantised": quantised, "quantised half": lambda: quantised(torch.float16), "laws": laws}
    others["variants"] = variants
    for name in names:
        yield others.get(name) or (lambda name=name: step(SHAPES[name]))


def main():
    capability = int(sys.argv[1])
    seen = set()
    for kernel, arguments, options in [each for run in runs_of(sys.argv[2:]) for each in launches_of(run)]:
        constants = {name: str(value) for name, value in options.items()}
        known = (kernel.fn.__name__, str(constants), str(list(map(type_of, arguments))))
        if known in seen:
            continue
        seen.add(known)
        binary = compiled(kernel, arguments, options, capability)
        told = {"kernel": kernel.fn.__name__, "shared": binary.metadata.shared, **resources(binary)}
        told |= {"products": "mma" in binary.asm["ptx"], "wide": len(WIDE.findall(binary.asm["ptx"]))}
        print(json.dumps(told | {"constants": constants}), flush=True)


if __name__ == "__main__":
    main()
