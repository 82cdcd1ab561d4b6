"""Errors for folders that do not hold a runnable model. Each kind of content has its own message and way out."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.gguf.parts import cut_files
from rapid_integrations.models.packed.scheme import UNQUANTISED, scheme_of, settings_of
from rapid_integrations.models.safetensors_files import INDEX, SINGLE, is_lfs_pointer, named, pointer_words

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LARGEST_JSON = 64 << 20  # bytes
_DEEPEST_JSON = 64

_ORIGINAL = "Take the original model with safetensors, or its GGUF file"
_QUANTIZED = {
    "bitsandbytes": "bitsandbytes",
    "nvfp4": "NVFP4",
    "modelopt": "NVIDIA ModelOpt",
    "exl2": "ExLlamaV2",
    "exl3": "ExLlamaV3",
}
# Older tools wrote this file beside the configuration instead of adding to the configuration.
_PACKED_BESIDE = {"quantize_config.json": "gptq", "quant_config.json": "awq"}

# (suffix of a file, what it is, the way out); looked up in this order, after safetensors and GGUF.
_FORMATS = (
    (
        ".bin",
        "pickled PyTorch weights (.bin), which can run any code when they are opened and are never opened here",
        'Convert them to safetensors, where you trust their author: python -c "from transformers import '
        "AutoModelForCausalLM as M; M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\", and copy "
        "the tokenizer's files beside them",
    ),
    (
        ".pth",
        "pickled PyTorch weights in their first authors' layout (.pth)",
        "Take the model's transformers version with safetensors, or convert it with transformers' script for it",
    ),
    (".pt", "pickled PyTorch weights (.pt)", "Convert them to safetensors, where you trust their author"),
    (".ckpt", "a training checkpoint (.ckpt)", "Export the model to safetensors with the program that trained it"),
    (".onnx", "an ONNX export", "Take the original model with safetensors, or its GGUF file"),
    (".h5", "TensorFlow weights (.h5)", "Take the model's safetensors, or convert them with transformers 4"),
    (".msgpack", "Flax weights (.msgpack)", "Take the model's safetensors, or convert them with transformers 4"),
    (".npz", "MLX or NumPy weights (.npz)", "Take the original model with safetensors"),
    (".tflite", "a TensorFlow Lite model", "Take the original model with safetensors"),
    (".mlmodelc", "a Core ML model", "Take the original model with safetensors"),
    (".mlpackage", "a Core ML model", "Take the original model with safetensors"),
    (".nemo", "a NeMo checkpoint", "Export it to transformers' format with NeMo"),
    (".engine", "a TensorRT engine", "Take the original model with safetensors"),
)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file in a model folder, bounded in size and depth.

    Raises:
        ModelLoadError: the file is missing, too large, not JSON, nested too deep, or not an object.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise ModelLoadError(f"{path} could not be loaded: {size / 1e6:,.0f} MB is too large for a configuration")
        if is_lfs_pointer(path):
            raise ModelLoadError(pointer_words(path))
        content = path.read_bytes()
        if content.startswith(_MARKS):
            raise ModelLoadError(
                f"{path} could not be loaded: it begins with a byte order mark, as some editors write it, which "
                "transformers does not read. Save it as UTF-8 without a mark"
            )
        found = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        page = "it is an HTML page, not JSON: download the file itself; " if _is_page(path) else ""
        raise ModelLoadError(f"{path} could not be loaded: {page}{error}. Fetch it again") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{path} could not be loaded: it holds a {type(found).__name__}, not an object")
    if depth(found) > _DEEPEST_JSON:
        raise ModelLoadError(f"{path} could not be loaded: it is nested more than {_DEEPEST_JSON} deep")
    return found


def depth(value: Any, most: int = 1000) -> int:
    """Return how deep lists and objects are nested, counting up to `most`."""
    level, here = 0, [value]
    while here and level < most:
        here = [
            inner
            for outer in here
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        level += 1
    return level


def refuse_folder_without_config(folder: Path) -> None:
    """Raise an error that says what a folder without a config.json or a GGUF model holds instead.

    Raises:
        ModelLoadError: always.
    """
    names = {path.name for path in folder.iterdir()}
    start = f"{folder} is not a model folder"
    if not names:
        raise ModelLoadError(f"{start}: it is empty. Download the model into it, or give another folder")
    if "adapter_config.json" in names:
        raise ModelLoadError(_adapter_words(folder))
    if pieces := cut_files(folder):
        raise ModelLoadError(
            f"{start}: its GGUF file was cut into pieces ({named(pieces)}). Put them together: cat {' '.join(pieces)} "
            "> model.gguf"
        )
    if names & {"modules.json", "config_sentence_transformers.json"}:
        raise ModelLoadError(_embedder_words(folder))
    if "model_index.json" in names:
        raise ModelLoadError(f"{start}: it is a diffusers pipeline, which makes pictures, not text")
    if "params.json" in names:
        raise ModelLoadError(
            f"{start}: it has a params.json, so it is in the first authors' layout (Meta, Mistral). Take the model's "
            "transformers version (config.json and model.safetensors), or its GGUF file"
        )
    if any(name.endswith(".xml") and f"{name[:-4]}.bin" in names for name in names):
        raise ModelLoadError(f"{start}: it is an OpenVINO model. {_ORIGINAL}")
    snapshots = sorted(path.parent for path in folder.glob("snapshots/*/config.json"))
    inner = snapshots or sorted(path.parent for path in folder.glob("*/config.json"))
    if inner:
        raise ModelLoadError(f"{start}, but folders inside it are: name one of them, {named(map(str, inner))}")
    for suffix, what, way_out in _FORMATS:
        if found := sorted(name for name in names if name.endswith(suffix)):
            raise ModelLoadError(
                f"{start}: it has no config.json, and holds {what}: {named(found)}. {way_out.format(folder=folder)}"
            )
    if any(name.endswith(".safetensors") for name in names):
        raise ModelLoadError(f"{start}: it has weights, but no config.json, which says how to use them. Add it")
    if names & {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json"}:
        raise ModelLoadError(f"{start}: it holds a tokenizer only, no config.json and no weights")
    raise ModelLoadError(f"{start}: it holds neither a config.json nor a GGUF file, but {named(sorted(names))}")


def refuse_what_is_no_file(folder: Path) -> None:
    """Refuse pipes, sockets and devices among a folder's files: opening them may wait for ever.

    Raises:
        ModelLoadError: there is one; the message names the first.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelLoadError(f"{path} could not be loaded: it is a pipe, socket or device, not a file")


def refuse_weights_of_another_kind(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder with a config.json whose weights this engine cannot read.

    Raises:
        ModelLoadError: the message says what the weights are, and gives the way out.
    """
    names = {path.name for path in folder.iterdir()}
    has_weights = bool(names & {SINGLE, INDEX})
    if "adapter_config.json" in names and not has_weights:
        raise ModelLoadError(_adapter_words(folder))
    if "adapter_config.json" in names:
        raise ModelLoadError(
            f"{folder} holds a whole model and an adapter (adapter_config.json): which of them is meant? Move the "
            "adapter's files out to run the model alone, or merge both with peft (merge_and_unload)"
        )
    refuse_quantized(str(folder), with_settings_beside(folder, config))
    if has_weights:
        return
    start = f"{folder} could not be loaded: it has no {SINGLE}"
    if "weights.npz" in names:
        raise ModelLoadError(f"{start}, but MLX weights (weights.npz). Take the original model with safetensors")
    if any(name.endswith(".xml") and f"{name[:-4]}.bin" in names for name in names):
        raise ModelLoadError(f"{start}: it is an OpenVINO model. {_ORIGINAL}")
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        if any("-of-" in name for name in others):
            raise ModelLoadError(
                f"{start} and no {INDEX}, but {named(others)}: the index of the weights is missing. Fetch it"
            )
        if any(name.startswith("consolidated") for name in others):
            raise ModelLoadError(
                f"{start}, but {named(others)}, in Mistral's own layout. Fetch the transformers files of the model "
                f"({SINGLE} or {INDEX} with its parts)"
            )
        raise ModelLoadError(f"{start}, but {named(others)}. If these are all its weights, name the file {SINGLE}")
    for suffix, what, way_out in _FORMATS:
        if found := sorted(name for name in names if name.endswith(suffix) and name != "training_args.bin"):
            raise ModelLoadError(f"{start}, but {what}: {named(found)}. {way_out.format(folder=folder)}")
    raise ModelLoadError(f"{start} nor {INDEX}: there are no weights. Fetch them")


def with_settings_beside(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration with the settings of the quantisation that older tools wrote into a file beside it."""
    if settings_of(config) is None:
        for name, kind in _PACKED_BESIDE.items():
            if (folder / name).exists():
                return {**config, "quantization_config": {"quant_method": kind, **read_json(folder / name)}}
    return config


def refuse_quantized(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration whose weights are quantised in a format that this engine cannot read.

    Raises:
        UnsupportedModelError: the message has the format and what to use instead.
    """
    packed = settings_of(config)
    if packed is not None and not (isinstance(packed, Mapping) and packed):
        raise ModelLoadError(
            f"{name} could not be loaded: its quantization_config is {str(packed)[:60]!r}, which states no "
            "method. Remove it if the weights are not quantised"
        )
    if isinstance(packed, Mapping):
        if scheme_of(name, packed) is not None:
            return
        method = str(packed.get("quant_method", "an unnamed method"))
        if packed.get("quant_method") is None and (packed.get("load_in_4bit") or packed.get("load_in_8bit")):
            method = "bitsandbytes"
        kind = _QUANTIZED.get(method, method)
        raise UnsupportedModelError(
            f"{name} holds weights that are quantised with {kind}, which this engine cannot read. {UNQUANTISED}"
        )
    if isinstance(mlx := config.get("quantization"), Mapping) and {"group_size", "bits"} <= set(mlx):
        raise UnsupportedModelError(
            f"{name} holds weights quantised with MLX, which this engine cannot read. {UNQUANTISED}"
        )


def refuse_another_task(name: str, config: Mapping[str, Any], folder: Path | None = None) -> None:
    """Refuse a model whose configuration says that it does something other than continue a text.

    Raises:
        UnsupportedModelError: the message says what the model does.
    """
    named_classes = config.get("architectures")
    classes = [each for each in named_classes if isinstance(each, str)] if isinstance(named_classes, list) else []
    if config.get("is_encoder_decoder") is True:
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; a decoder-only causal LM is needed")
    if folder is not None and ((folder / "modules.json").exists() or (folder / "1_Pooling").exists()):
        raise UnsupportedModelError(_embedder_words(folder))
    if not classes or any(_writes(each) for each in classes):
        return
    first = classes[0]
    for suffix, what in (
        ("ForMaskedLM", "fills gaps in texts (an encoder)"),
        ("ForSequenceClassification", "classifies texts (a classifier, reward model or reranker)"),
        ("ForTokenClassification", "labels words"),
        ("ForQuestionAnswering", "marks answers in a text"),
        ("ForImageClassification", "classifies pictures"),
        ("ForCTC", "recognises speech"),
        ("ForSpeechSeq2Seq", "recognises speech"),
        ("Model", "gives vectors, for instance as an embedding model, and has no head that writes"),
    ):
        if first.endswith(suffix):
            raise UnsupportedModelError(
                f"{name} is a {first}: it {what}. A causal LM is needed, an instruction-tuned one for questions"
            )


def _writes(name: str) -> bool:
    return name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "WithLMHead")) or "CausalLM" in name


def _adapter_words(folder: Path) -> str:
    base = None
    try:
        base = json.loads((folder / "adapter_config.json").read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    of = f" for {base}" if isinstance(base, str) and base else ""
    return (
        f"{folder} is an adapter (LoRA/PEFT){of}, not a whole model. Merge it into its base model and give the result: "
        "peft.AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload().save_pretrained(new_folder)"
    )


def _embedder_words(folder: Path) -> str:
    return (
        f"{folder} is a sentence-transformers model: it gives vectors and writes no text. Pass it as the embedder "
        "(embedder=, --embedder), and a causal LM as the model"
    )


def _is_page(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
    except OSError:
        return False
