"""How the weights of a checkpoint are quantised, read from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu.blocks import FORMATS, BlockFormat
from rapid_integrations.kernels.cpu.panels import GROUP

Layout: TypeAlias = Literal["gptq", "awq", "pack-quantized", "int-quantized", "fp8", "mxfp4"]

UNQUANTISED = (
    "Take the model's unquantised safetensors (quantization='int8' or 'int4' packs them here), or a GGUF file of it"
)
_BY_NAME = {form.name: form for form in FORMATS.values()}


@dataclass(frozen=True)
class Scheme:
    """How the weights of a checkpoint are quantised.

    Attributes:
        name: of the format, for messages.
        layout: how its tensors are packed.
        bits: of a level.
        group: columns that share a scale; 0: a whole row shares it.
        asymmetric: whether groups have zero points of their own.
        ordered: whether the columns of a group may lie apart (act-order).
        stored_less_one: whether zero points are stored less one.
        block: rows and columns of a block of FP8 weights that shares a scale; None: the scale's shape says it.
    """

    name: str
    layout: Layout
    bits: int
    group: int = 0
    asymmetric: bool = False
    ordered: bool = False
    stored_less_one: bool = False
    block: tuple[int, int] | None = None

    @property
    def form(self) -> BlockFormat | None:
        """The format of GGUF blocks that holds every level exactly, or None if none does.

        Each block has 32 columns, an offset and a float16 scale. A zero point moves a level of four bits by up to 16,
        for which five bits suffice. MXFP4 has a format of its own.
        """
        if self.layout == "mxfp4":
            return _BY_NAME["MXFP4"]
        if self.layout == "fp8" or self.ordered or self.group % GROUP:
            return None
        if self.bits == 4:
            return _BY_NAME["Q5_0" if self.asymmetric else "Q4_0"]
        return None if self.asymmetric else _BY_NAME["Q8_0"]

    @property
    def why_dense(self) -> str:
        """Why no blocks hold the levels."""
        if self.layout == "fp8":
            return "floats of eight bits have no integer levels"
        if self.ordered:
            return "the columns of a group lie apart (desc_act)"
        if self.group % GROUP:
            return f"its groups of {self.group} columns are no multiple of {GROUP}"
        return "zero points move levels of eight bits beyond eight bits"


def kept_words(scheme: Scheme, family: bool, *, in_part: bool = False) -> str:
    """Say how the weights of a checkpoint are kept, and whether they are rounded a second time.

    Args:
        scheme: how they are quantised.
        family: whether the model is of a family whose matrices may lie in blocks.
        in_part: whether some of them may not.
    """
    dense = (
        "their bfloat16 has every value exactly"
        if scheme.layout == "mxfp4"
        else "bfloat16 rounds them a second time, float32 does not"
    )
    if scheme.form is None:
        return f"{scheme.name}: dequantised, because {scheme.why_dense}; {dense}"
    if not family:
        return f"{scheme.name}: dequantised, because this family's matrices do not lie in blocks; {dense}"
    repacked = (
        f"{scheme.name}: repacked into blocks of the kernels ({scheme.form.name}) without a second rounding, in "
        "bfloat16 on a processor"
    )
    if in_part:
        repacked += ", but for matrices of steps, decays and latents, which become bfloat16 if they are quantised"
    if scheme.layout == "mxfp4":
        return f"{repacked}; dequantised otherwise; {dense}"
    return (
        f"{repacked}, if float16 holds its scales; "
        "dequantised otherwise, which bfloat16 rounds a second time and float32 does not"
    )


def settings_of(config: Mapping[str, Any]) -> Any:
    """Return the settings of the quantisation in a parsed config.json, or None if there are none."""
    found = config.get("quantization_config")
    if found is None:
        found = config.get("compression_config")
    if found is None and isinstance(config.get("text_config"), Mapping):
        found = config["text_config"].get("quantization_config")
    return found


def scheme_in(name: str, config: Mapping[str, Any]) -> Scheme | None:
    """Return how the weights of a model are quantised, by its configuration, or None if they are not.

    Raises:
        UnsupportedModelError: in a way that is not read.
    """
    settings = settings_of(config)
    return scheme_of(name, settings) if isinstance(settings, Mapping) else None


def scheme_of(name: str, settings: Mapping[str, Any]) -> Scheme | None:
    """Return how weights are quantised, or None for a method that is not known here.

    Args:
        name: of the model, for messages.
        settings: its quantization_config.

    Raises:
        UnsupportedModelError: the method is known, but not this variant of it.
    """
    method = settings.get("quant_method")
    reader = _READERS.get(method) if isinstance(method, str) else None
    return None if reader is None else reader(name, settings)


_LEFT_OUT = "-:"  # begins a pattern of modules that are not quantised: their files hold plain weights


def _gptq(name: str, settings: Mapping[str, Any]) -> Scheme:
    bits = settings.get("bits")
    if bits not in (4, 8):
        raise _unsupported(name, "GPTQ", f"with bits = {bits!r}, and only 4 and 8 are read")
    version = settings.get("checkpoint_format") or "gptq"
    if version not in ("gptq", "gptq_v2") or settings.get("is_marlin_format"):
        raise _unsupported(name, "GPTQ", f"in the layout {version!r}, and only 'gptq' and 'gptq_v2' are read")
    if any(not pattern.startswith(_LEFT_OUT) for pattern in settings.get("dynamic") or ()):
        raise _unsupported(name, "GPTQ", "with other settings for some modules (dynamic)")
    group = _group(name, "GPTQ", settings.get("group_size", 128))
    return Scheme(
        f"GPTQ, {bits} bits",
        "gptq",
        bits,
        group,
        asymmetric=settings.get("sym") is False,
        ordered=bool(settings.get("desc_act")),
        stored_less_one=version == "gptq",
    )


def _awq(name: str, settings: Mapping[str, Any]) -> Scheme:
    bits = settings.get("bits", settings.get("w_bit", 4))
    version = str(settings.get("version") or "gemm").lower()
    if bits != 4:
        raise _unsupported(name, "AWQ", f"with bits = {bits!r}, and only 4 are read")
    if version != "gemm":
        raise _unsupported(name, "AWQ", f"in the layout {version!r}, and only 'gemm' is read")
    if settings.get("zero_point", True) is not True:
        raise _unsupported(name, "AWQ", "without zero points, which no published tool writes in this layout")
    group = _group(name, "AWQ", settings.get("group_size", settings.get("q_group_size", 128)))
    return Scheme("AWQ, 4 bits", "awq", 4, group, asymmetric=True)


def _compressed(name: str, settings: Mapping[str, Any]) -> Scheme:
    method, layout = "compressed-tensors", settings.get("format")
    groups = settings.get("config_groups")
    weights = [each.get("weights") for each in groups.values()] if isinstance(groups, Mapping) else []
    if not weights or not isinstance(weights[0], Mapping) or any(each != weights[0] for each in weights):
        raise _unsupported(name, method, "with config_groups that do not quantise all weights in one way")
    sparse, moved = settings.get("sparsity_config"), settings.get("transform_config")
    if isinstance(sparse, Mapping) and sparse.get("format") not in (None, "dense"):
        raise _unsupported(name, method, f"and stored as a sparse matrix ({sparse.get('format')})")
    if isinstance(moved, Mapping) and moved.get("config_groups"):
        raise _unsupported(name, method, "behind rotations of their inputs (transform_config)")
    own = weights[0]
    bits, kind, strategy = own.get("num_bits"), own.get("type", "int"), own.get("strategy")
    if layout in ("float-quantized", "naive-quantized") and kind == "float" and bits == 8:
        block = _block(name, method, "block_structure", own.get("block_structure"))
        return Scheme(f"{method} {layout}, FP8", "fp8", 8, block=block)
    if layout not in ("pack-quantized", "int-quantized") or kind != "int":
        raise _unsupported(name, method, f"in the format {layout!r} of type {kind!r}")
    if bits != 8 and (bits != 4 or layout == "int-quantized"):
        raise _unsupported(name, method, f"in the format {layout!r} with {bits!r} bits")
    if strategy not in ("group", "channel", "tensor"):
        raise _unsupported(name, method, f"with the strategy {strategy!r} for scales")
    group = _group(name, method, own.get("group_size")) if strategy == "group" else 0
    ordered = own.get("actorder") in ("group", "dynamic", True)
    return Scheme(
        f"{method} {layout}, {bits} bits",
        layout,
        bits,
        group,
        asymmetric=own.get("symmetric") is False,
        ordered=ordered,
    )


def _fp8(name: str, settings: Mapping[str, Any]) -> Scheme:
    if settings.get("fmt", "e4m3") != "e4m3":
        raise _unsupported(name, "FP8", f"with numbers of the format {settings['fmt']!r}, and only 'e4m3' is read")
    block = _block(name, "FP8", "weight_block_size", settings.get("weight_block_size"))
    return Scheme("FP8", "fp8", 8, block=block)


def _block(name: str, method: str, key: str, given: Any) -> tuple[int, int] | None:
    if not isinstance(given, (list, tuple)):  # the shapes of the scales say it
        return None
    if len(given) != 2 or any(type(each) is not int or each < 1 for each in given):
        raise _unsupported(name, method, f"with {key} = {given!r}, and two whole numbers from 1 on are needed")
    return given[0], given[1]


def _mxfp4(name: str, settings: Mapping[str, Any]) -> Scheme:
    return Scheme("MXFP4", "mxfp4", 4, group=32)


def _group(name: str, method: str, group: Any) -> int:
    if group in (-1, None):
        return 0
    if type(group) is not int or group < 1:
        raise _unsupported(name, method, f"with group_size = {group!r}, and a whole number or -1 is needed")
    return group


def _unsupported(name: str, method: str, variant: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} holds weights that are quantised with {method} {variant}, so this engine cannot read them. "
        f"{UNQUANTISED}"
    )


_READERS = {
    "gptq": _gptq,
    "awq": _awq,
    "compressed-tensors": _compressed,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "finegrained_fp8": _fp8,
    "mxfp4": _mxfp4,
}
