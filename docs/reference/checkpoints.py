"""The formats of quantised checkpoints, and what becomes of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import fill
from typing import Any

from docs.reference.tables import Row, table
from rapid_integrations.models.packed.scheme import scheme_of
from rapid_integrations.models.packed.text_part import IN_BLOCKS, IN_PART

TEXT = """## Quantised checkpoints

Folders of safetensors may hold weights that are quantised. No other package is needed. `rapid models check` says how
they are kept, from config.json alone, and the progress of loading says it again.

{formats}

- **in blocks**: the integers are repacked into blocks that the kernels multiply with, and no number is rounded. This is
  for the families below, in bfloat16 on a processor, if float16 holds every scale. Of models of text and pictures it
  is the language model (Gemma 3, Mistral 3, LLaVA, Qwen2-VL, Qwen2.5-VL, Qwen3-VL). MXFP4 has blocks of its own,
  which hold every scale. A product rounds its inputs as for GGUF files. Loading compares the model with transformers'
  own each time. `model_type` of config.json:

{in_blocks}

- **in blocks, in part**: the same for the families below, but for small matrices that the kernels never multiply in
  blocks: those that steps and decays of recurrent states are computed from, and those that make keys and values of
  latents. Where a checkpoint has them quantised, they become bfloat16, which rounds them a second time. Most tools
  leave them alone, but for the rows of steps in the one matrix of a Mamba2.

{in_part}

- **dequantised**: the weights become numbers of the model's dtype, and take its memory. bfloat16 rounds what they stand
  for, which is a second rounding. float32 has it exactly, but for FP8, whose product with its scale is rounded to 24
  bits. All formats are dequantised for other families, in other dtypes, on other devices, and if `quantization=` asks
  for int8 or int4.

Scales of inputs and of cached keys and values are not used: inputs are not rounded, or as this page says. On a hub,
`rapid models check` works by name, and loading wants a folder (`hf download NAME --local-dir FOLDER`). GPTQ with other
bits, with other settings for some modules (`dynamic`, but for modules that it leaves out) or in the layout of Marlin,
AWQ in other layouts than "gemm", compressed-tensors with several ways of quantising, sparse matrices or rotated inputs,
NVFP4, bitsandbytes, MLX and ExLlama are refused with the reason.
"""

# Settings of the formats that are read. What becomes of them is asked of the code.
FORMATS: dict[str, dict[str, Any]] = {
    "GPTQ, 4 bits": {"quant_method": "gptq", "bits": 4, "sym": True},
    "GPTQ, 4 bits, asymmetric": {"quant_method": "gptq", "bits": 4, "sym": False},
    "GPTQ, 8 bits": {"quant_method": "gptq", "bits": 8, "sym": True},
    "GPTQ, 8 bits, asymmetric": {"quant_method": "gptq", "bits": 8, "sym": False},
    "GPTQ, act-order": {"quant_method": "gptq", "bits": 4, "desc_act": True},
    "AWQ, gemm": {"quant_method": "awq", "bits": 4},
    **{
        f"compressed-tensors {layout}, {bits} bits": {
            "quant_method": "compressed-tensors",
            "format": layout,
            "config_groups": {"0": {"weights": {"num_bits": bits, "strategy": "channel", "type": kind}}},
        }
        for layout, bits, kind in (
            *(("pack-quantized", 4, "int"), ("pack-quantized", 8, "int")),
            *(("int-quantized", 8, "int"), ("float-quantized", 8, "float")),
        )
    },
    "FP8 (DeepSeek's blocks, or one scale)": {"quant_method": "fp8"},
    "FBGEMM FP8": {"quant_method": "fbgemm_fp8"},
    "MXFP4 (GPT-OSS)": {"quant_method": "mxfp4"},
}


def section() -> str:
    """Return the section: the formats, and the families whose weights stay in blocks."""
    return TEXT.format(
        formats=_formats(),
        in_blocks=fill(_joined(IN_BLOCKS), 120, initial_indent="  ", subsequent_indent="  "),
        in_part=fill(_joined(IN_PART), 120, initial_indent="  ", subsequent_indent="  "),
    )


def _formats() -> str:
    rows: list[Row] = []
    for name, settings in FORMATS.items():
        scheme = scheme_of(name, settings)
        assert scheme is not None
        kept = "dequantised" if scheme.form is None else f"in blocks ({scheme.form.name})"
        exact = "no" if scheme.form is not None or scheme.layout == "mxfp4" else "in bfloat16"
        rows.append((name, kept, exact, "" if scheme.form is not None else scheme.why_dense))
    return table(("format", "kept", "rounded a second time", "why"), rows)


def _joined(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(names))
