"""From a name to a running model: packaged models, GGUF files, folders and names on a hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rapid_integrations.config import Quantization
from rapid_integrations.errors import ConfigurationError, ModelLoadError, RapidError
from rapid_integrations.models import packaged
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.gguf import load_gguf
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.out_of_memory import is_out_of_memory, memory_errors_taught
from rapid_integrations.progress import OnProgress
from rapid_integrations.shared_resource import SharedResource

_LESS_MEMORY = "Use a smaller model, dtype='bfloat16', quantization='int8' or 'int4', or another device"


@dataclass(frozen=True)
class LoadedModel(SharedResource):
    """A model and the vocabulary that it reads and writes."""

    lm: CausalLM
    vocabulary: Vocabulary


def load(
    name: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: Any = None,
    revision: str | None = None,
    quantization: Quantization | None = None,
    trust_remote_code: bool = False,
    on_progress: OnProgress | None = None,
) -> LoadedModel:
    """Load a causal LM and its tokenizer.

    Args:
        name: a packaged model (`rapid models list`), a GGUF file, a folder with a config.json and safetensors or with
            one GGUF file, or a name on the Hugging Face hub.
        dtype: "auto" follows the model and the processor; else "float32", "bfloat16", "float16" or a torch dtype.
        device: "auto" is CUDA where there is one, else the CPU.
        device_map: passed on to transformers (several devices, offloading); `device` is ignored then.
        revision: of a model on the hub.
        quantization: "int8" or "int4" stores the weights so (not the embedding table), which costs some quality; None
            keeps them as they are.
        trust_remote_code: run Python code that comes with the model. Off unless you trust its author.
        on_progress: called with (stage, done, total).

    Raises:
        ModelLoadError: the name leads to no usable model; UnsupportedModelError: to one that cannot be run exactly.
        OutOfMemoryError: the device has no room for it.
    """
    with memory_errors_taught(f"loading {name}", _LESS_MEMORY):
        return _load(name, dtype, device, device_map, revision, quantization, trust_remote_code, on_progress)


def _load(
    name: str | Path,
    dtype: str | torch.dtype,
    device: str | torch.device,
    device_map: Any,
    revision: str | None,
    quantization: Quantization | None,
    trust_remote_code: bool,
    on_progress: OnProgress | None,
) -> LoadedModel:
    path = _local_path(name, on_progress)
    placement = {"device_map": device_map if device_map is not None else str(_device(device))}
    try:
        with _quiet(on_progress is not None):
            if path is not None and path.suffix == ".gguf":
                model, tokenizer = load_gguf(path, _dtype(dtype, None, _device(device)), **placement)
            else:
                model, tokenizer = _load_folder_or_hub(
                    str(path or name), dtype, _device(device), revision, trust_remote_code, **placement
                )
    except RapidError:
        raise
    except Exception as error:  # transformers, safetensors and gguf raise errors of many types for a bad file
        if is_out_of_memory(error):
            raise
        raise ModelLoadError(_explain(name, path, error)) from error
    return wrap(model, tokenizer, name=str(name), take_over=True, quantization=quantization, on_progress=on_progress)


def wrap(model: Any, tokenizer: Any, name: str | None = None, **options: Any) -> LoadedModel:
    """Put a transformers model and tokenizer that are already there behind this package's protocols.

    `options`: see `HuggingFaceLM`.
    """
    model.eval()
    vocabulary = Vocabulary(tokenizer, _eos_token_ids(model, tokenizer))  # first: it may refuse
    return LoadedModel(HuggingFaceLM(model, name, **options), vocabulary)


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Keep transformers' own progress bars off a terminal on which the caller shows progress."""
    from transformers.utils import logging

    if not quiet or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _local_path(name: str | Path, on_progress: OnProgress | None) -> Path | None:
    """Return the file or folder that `name` means, or None for a name on a hub."""
    if str(name) in packaged.MODELS:
        return packaged.pull(str(name), on_progress)
    path = Path(name).expanduser()
    if path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        if (path / "config.json").exists():
            return path
        if len(ggufs) == 1:
            return ggufs[0]
        held = f"{len(ggufs)} GGUF files: name one of them" if ggufs else "neither a config.json nor a GGUF file"
        raise ModelLoadError(f"{path} is no model folder: it holds {held}")
    if path.is_file():
        if path.suffix == ".gguf":
            return path
        raise ModelLoadError(f"{path} is no model: give a GGUF file, a model folder, a packaged name or a hub name")
    if isinstance(name, Path) or path.is_absolute() or path.suffix == ".gguf" or str(name).startswith((".", "~")):
        raise ModelLoadError(f"{path} does not exist: give a GGUF file or a model folder")
    if str(name).count("/") > 1 or not str(name).strip():
        raise ModelLoadError(
            f"{str(name)!r} is neither an existing file or folder, nor a packaged model "
            f"({', '.join(packaged.MODELS)}), nor a hub name like 'Qwen/Qwen2.5-1.5B-Instruct'"
        )
    return None


def _load_folder_or_hub(
    name: str,
    dtype: str | torch.dtype,
    device: torch.device,
    revision: str | None,
    trust_remote_code: bool,
    **placement: Any,
) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    origin = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(name, **origin)
    model, report = AutoModelForCausalLM.from_pretrained(
        name,
        config=config,
        dtype=_dtype(dtype, getattr(config.get_text_config(decoder=True), "dtype", None), device),
        use_safetensors=True,
        output_loading_info=True,
        **origin,
        **placement,
    )
    if missing := sorted(report["missing_keys"]):
        raise ModelLoadError(
            f"{name} lacks {len(missing)} weights ({missing[0]}, ...), which transformers would fill with random "
            "numbers: the checkpoint is incomplete, fetch it again"
        )
    return model, AutoTokenizer.from_pretrained(name, **origin)


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ConfigurationError(f"device={device!r} is none: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from error


def _dtype(asked: str | torch.dtype, own: torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the dtype to compute in.

    "auto" is the model's own where the processor is fast at it. A processor without bfloat16 instructions emulates
    them many times slower than float32; float16 is emulated on nearly all.
    """
    if asked != "auto":
        dtype = getattr(torch, asked, None) if isinstance(asked, str) else asked
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ConfigurationError(f"dtype={asked!r}: use 'auto', 'float32', 'bfloat16' or 'float16'")
        return dtype
    if device.type == "cpu":
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        fast = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("sve_bf16") or able.get("arm_bf16")
        return torch.bfloat16 if fast else torch.float32
    return own if own in (torch.bfloat16, torch.float16) else torch.bfloat16


def _eos_token_ids(model: Any, tokenizer: Any) -> Iterable[int]:
    """Return every id that ends an answer: transformers' generation settings first, then the configuration."""
    for eos in (getattr(model.generation_config, "eos_token_id", None), model.config.eos_token_id):
        if eos is not None:
            return [eos] if isinstance(eos, int) else list(eos)
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _explain(name: str | Path, path: Path | None, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{path or name} could not be loaded: only Python code that comes with it can run it. Read that code, and "
            "pass trust_remote_code=True (--trust-remote-code) if you trust its author"
        )
    reason = str(error).strip().split("\n")[0][:300] or type(error).__name__
    if path is None:
        return (
            f"{name!s} could not be loaded from the hub: {reason}. Check the name and the connection, or give a local "
            f"folder, a GGUF file or a packaged model ({', '.join(packaged.MODELS)})"
        )
    return f"{path} could not be loaded: {reason}. The file may be damaged or incomplete: fetch it again"
