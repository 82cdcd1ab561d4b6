"""Loads models by name: packaged models, GGUF files, folders and names on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rapid_integrations.cache.out_of_memory import memory_errors_taught
from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import (
    ConfigurationError,
    ModelLoadError,
    SharedResource,
)
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.chat_rendering import PROBE_STEPS, check_template, render_template
from rapid_integrations.models.config_bounds import check_numbers
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.decoder_widths import not_on_kernels
from rapid_integrations.models.end_tokens import end_token_ids
from rapid_integrations.models.families import describe
from rapid_integrations.models.folder_kinds import (
    read_json,
    refuse_another_task,
    refuse_weights_of_another_kind,
    refuse_what_is_no_file,
    with_settings_beside,
)
from rapid_integrations.models.gguf.stored import load_stored
from rapid_integrations.models.isolated import ISOLATED, asked_for, check_in_a_child
from rapid_integrations.models.load_errors import errors_explained
from rapid_integrations.models.model_path import local_path
from rapid_integrations.models.packed.scheme import scheme_in
from rapid_integrations.models.placement import depends_on_kernels, device_of, dtype_of
from rapid_integrations.models.quick_start import QuickModel, keep_description, quick_model
from rapid_integrations.models.tokenizer_bounds import check_tokenizer, check_tokenizer_files
from rapid_integrations.models.transformers_loading import load_with_transformers, quiet
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.packaged.checked import remember
from rapid_integrations.progress import OnProgress, ignore_progress

_LESS_MEMORY = "Use a smaller model, dtype='bfloat16', quantization='int8' or 'int4', or another device"
_NOBODY_SAID = 1 << 40


@dataclass(frozen=True)
class LoadedModel(SharedResource):
    """A model with the vocabulary for its tokens."""

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
    verify: Literal["isolated"] | None = None,
    kv_dtype: KVDtype | None = None,
    sparse_prefill: float | None = None,
    on_progress: OnProgress | None = None,
    quick: bool = True,
) -> LoadedModel:
    """Load a causal LM and its tokenizer.

    Args:
        name: a packaged model (`rapid models list`), a GGUF file (any file of a model in several files), a folder
            with a config.json and safetensors or with one GGUF model, or a name on the Hugging Face hub.
        dtype: "auto" follows the model and the processor. Otherwise "float32", "bfloat16", "float16" or a torch dtype.
        device: "auto" is CUDA if it is available, otherwise the CPU.
        device_map: passed on to transformers (several devices, offloading). `device` is then ignored.
        revision: revision of a model on the hub.
        quantization: "int8" or "int4" quantises all weights but the embedding table, which costs some quality. None
            keeps the weights exact.
        trust_remote_code: run Python code that comes with the model. Set it only if you trust the model's author.
        verify: "isolated" first reads the configuration, the tokenizer and the chat template in a child process with
            bounded memory and time. Use it for folders that you do not trust: a file that crashes its reader ends the
            child process and not this one. The environment variable RAPID_VERIFY=isolated has the same effect.
        kv_dtype: "int8" stores keys and values in eight bits, which takes half of the memory and changes logits
            slightly. None stores them in the model's dtype.
        sparse_prefill: reads prompts with sparse attention (`sparse_attention`), which is faster for long ones and
            changes logits: the share of a block's estimated attention that is read, above 0 and below 1. Decoding
            stays dense. None reads all.
        on_progress: called with (stage, done, total).
        quick: load a model that was checked before without transformers (see `quick_start`).

    Raises:
        ModelLoadError: the model cannot be used; UnsupportedModelError if it cannot be run exactly.
        OutOfMemoryError: the model does not fit into the device's memory.
    """
    if kv_dtype not in (None, "int8"):
        raise ConfigurationError(f"kv_dtype={kv_dtype!r}: use 'int8' or None")
    if sparse_prefill is not None and not 0 < sparse_prefill < 1:
        raise ConfigurationError(
            f"sparse_prefill={sparse_prefill!r}: use a share above 0 and below 1, such as 0.9, or None"
        )
    if verify not in (None, ISOLATED):
        raise ConfigurationError(f"verify={verify!r}: use 'isolated' or None")
    with memory_errors_taught(f"loading {name}", _LESS_MEMORY):
        if asked_for(verify):
            check_in_a_child(local_path(name, on_progress), name)
        loaded = _load(name, dtype, device, device_map, revision, quantization, trust_remote_code, on_progress, quick)
        _set_up(loaded, kv_dtype, sparse_prefill)
        return loaded


def _set_up(loaded: LoadedModel, kv_dtype: KVDtype | None, sparse_prefill: float | None) -> None:
    """Let the model store keys and values, and read prompts, as asked for; it is closed if it cannot."""
    if kv_dtype is None and sparse_prefill is None:
        return
    from rapid_integrations.models.hf import HuggingFaceLM

    lm = loaded.lm
    assert isinstance(lm, (DecoderLM, HuggingFaceLM)), "no other model is loaded by name"
    try:
        if kv_dtype is not None:
            lm.store_in_eight_bits()
        if sparse_prefill is not None:
            lm.read_prompts_sparsely(sparse_prefill)
    except BaseException:
        lm.close()
        raise


def _load(
    name: str | Path,
    dtype: str | torch.dtype,
    device: str | torch.device,
    device_map: Any,
    revision: str | None,
    quantization: Quantization | None,
    trust_remote_code: bool,
    on_progress: OnProgress | None,
    quick: bool,
) -> LoadedModel:
    path = local_path(name, on_progress)
    placement = {"device_map": device_map if device_map is not None else str(device_of(device))}
    if dtype == "auto" and device_of(device).type == "cpu":
        if device_map is None:
            native_library(on_progress or ignore_progress)  # `dtype_of` asks what it can do
        else:  # parts of the model may lie elsewhere, and then it is not on the kernels
            dtype = dtype_of(dtype, None, device_of(device))
    with errors_explained(name, path):
        quick = quick and path is not None and device_map is None and revision is None and not trust_remote_code
        if quick and path and path.suffix.lower() == ".gguf" and quantization is None:
            kind = dtype_of(dtype, None, device_of(device), on_kernels=True)
            if stored := load_stored(path, str(name), kind, device_of(device), on_progress):
                return LoadedModel(*stored)
        if quick and path and (known := _quick_model(path, dtype, device_of(device), quantization, on_progress)):
            return LoadedModel(*known.loaded(str(name), quantization))
        with quiet():
            if path is not None and path.suffix.lower() == ".gguf":
                from rapid_integrations.models.dtype_choice import dtype_of_gguf
                from rapid_integrations.models.gguf.converted import load_gguf

                model, tokenizer = load_gguf(path, dtype_of_gguf(path, dtype, device_of(device)), **placement)
            else:
                if path is not None:
                    check_folder(path)
                    if quantization is None and (kept := _in_blocks(path, str(name), dtype, device, on_progress)):
                        return LoadedModel(*kept)
                model, tokenizer = load_with_transformers(
                    str(path or name),
                    path,
                    dtype,
                    device_of(device),
                    revision,
                    trust_remote_code,
                    on_progress,
                    **placement,
                )
        check_tokenizer(str(path or name), tokenizer)
        fresh = None
        if quick and path:
            fresh = _quick_model(path, model.dtype, device_of(device), quantization, on_progress, unchecked=True)
        equal = fresh is not None and fresh.equals(model, tokenizer)  # before the weights are taken over
        key = None
        if quick and path and fresh is None and (folder := _plain_folder(path, model.dtype)) is not None:
            key = keep_description(folder, model, tokenizer, device_of(device), quantization)
        loaded = wrap(
            model, tokenizer, name=str(name), take_over=True, quantization=quantization, on_progress=on_progress
        )
        if fresh is not None and equal:
            fresh.remember()
        elif key is not None and loaded.lm.reads_trees != bool(getattr(loaded.lm, "state_bytes", 0)):
            remember(key)  # a later start reads trees unless there are states, and this one was checked to do so
        return loaded


def _in_blocks(
    folder: Path, name: str, dtype: str | torch.dtype, device: str | torch.device, on_progress: OnProgress | None
) -> tuple[Any, Vocabulary] | None:
    """Do what `load_in_blocks` does for a folder, and return None if its weights are not quantised."""
    config = with_settings_beside(folder, read_json(folder / "config.json"))
    scheme = scheme_in(name, config)
    if scheme is None:
        return None
    from rapid_integrations.models.packed.loading import load_in_blocks

    own = config.get("dtype", config.get("torch_dtype"))
    own = getattr(torch, own, None) if isinstance(own, str) else None
    kind = dtype_of(dtype, own, device_of(device), on_kernels=True)
    return load_in_blocks(folder, name, config, scheme, kind, device_of(device), on_progress)


def _quick_model(
    path: Path,
    dtype: str | torch.dtype,
    device: torch.device,
    quantization: Quantization | None,
    on_progress: OnProgress | None,
    unchecked: bool = False,
) -> QuickModel | None:
    """Do what `quick_model` does for a file or folder."""
    depends = depends_on_kernels(dtype, device)
    for on_kernels in (True, False) if depends else (False,):
        folder = _plain_folder(path, dtype_of(dtype, None, device, on_kernels=on_kernels))
        if folder is None:
            continue
        try:
            own = read_json(folder / "config.json").get("dtype")
        except ModelLoadError:
            return None
        own = getattr(torch, own, None) if isinstance(own, str) else None
        kind = dtype_of(dtype, own, device, on_kernels=on_kernels)
        if kind == torch.bfloat16 and device.type == "cpu":
            native_library(on_progress or ignore_progress)
        found = quick_model(folder, kind, device, quantization, unchecked=unchecked)
        # An earlier start may have asked for a dtype that "auto" is not.
        if found is not None and (not depends or on_kernels == (not not_on_kernels(describe(found.skeleton)))):
            return found
    return None


def _plain_folder(path: Path, dtype: torch.dtype) -> Path | None:
    """Return a model folder, or the copy of a GGUF file in this dtype; None if there is none without surprises."""
    folder: Path | None = path
    if path.suffix.lower() == ".gguf":
        from rapid_integrations.models.gguf.converted import converted_copy

        folder = converted_copy(path, dtype)
    # The usual way of loading says what is wrong with a folder. Reading a pipe would wait for ever.
    if folder is None or not folder.is_dir() or not all(e.is_file() or e.is_dir() for e in folder.iterdir()):
        return None
    return folder


def check_folder(path: Path) -> None:
    """Check the files of a model folder before any library opens them.

    Raises:
        ModelLoadError: weights are of another kind, missing or cut off, or a configuration or tokenizer is impossible.
    """
    refuse_what_is_no_file(path)
    config = read_json(path / "config.json")
    refuse_weights_of_another_kind(path, config)
    refuse_another_task(str(path), config, path)
    check_numbers(str(path), config)
    check_tokenizer_files(path)


def wrap(model: Any, tokenizer: Any, name: str | None = None, **options: Any) -> LoadedModel:
    """Wrap an already loaded transformers model and tokenizer in this package's protocols.

    `options`: see `HuggingFaceLM`.
    """
    from rapid_integrations.models.hf import HuggingFaceLM

    model.eval()
    check_template(name or type(model).__name__, tokenizer.chat_template)
    ends = end_token_ids(model, tokenizer, _renderer(tokenizer))
    vocabulary = Vocabulary(tokenizer, ends)  # first, because it may refuse the tokenizer
    longest = getattr(tokenizer, "model_max_length", None)  # a huge number if it was never set
    longest = longest if type(longest) is int and 0 < longest < _NOBODY_SAID else None
    return LoadedModel(HuggingFaceLM(model, name, longest=longest, **options), vocabulary)


def _renderer(tokenizer: Any) -> Any:
    if not tokenizer.chat_template:
        return None
    return lambda messages, opened: render_template(
        tokenizer, messages, add_generation_prompt=opened, most_steps=PROBE_STEPS
    )
