"""GGUF files, dequantised once and cached as safetensors.

Reading a GGUF file through Python takes seconds per hundred megabytes. Its token lists alone are parsed three times,
for the configuration, the tokenizer and the weights. So the first load saves its result as an ordinary model folder,
and later loads take a fraction of a second.

A model in several files is joined first (`parts`). Every weight has to come from the files: an error is raised
instead of letting transformers fill missing weights with random numbers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rapid_integrations.cache.out_of_memory import is_out_of_memory
from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.config_bounds import check_numbers, check_size
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.gguf.description import architecture_of, configuration_of, weights_of
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.kinds import refuse_gguf, refuse_unread
from rapid_integrations.models.gguf.parts import join, parts_of, read_parts
from rapid_integrations.models.gguf.rope import rope_of
from rapid_integrations.models.gguf.tensors import MappedTensors
from rapid_integrations.models.gguf.tokenizer import require_known, tokenizer_of
from rapid_integrations.models.stored_model import stored_model
from rapid_integrations.models.weights import require_all_weights
from rapid_integrations.packaged.wheels import models_dir

_COMPLETE = "complete"  # written last; a folder without it is left from an interrupted conversion
# The file's content. It is empty in copies of release 0.1, which may hold random weights and lack ends of turns. Those
# of 2 may split texts as GPT-2, whatever the model was trained with. Those of 3 may lack control tokens.
_VERSION = "4"
_SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
    "expert_count": "num_experts",
    "vocab_size": "vocab_size",
}
# Keys of tokens that end an answer; files may have all. The last three end a file of code, or pad it.
_ENDS = tuple(f"{name}_token_id" for name in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"))


def load_gguf(path: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    """Return (model, tokenizer) from a GGUF file, every weight dequantised to `dtype`.

    Args:
        path: the file, or any file of a model in several files.
        dtype: dtype of the weights.
        options: further arguments of transformers' `from_pretrained` (`device_map`, ...).

    Raises:
        ModelLoadError: parts or weights are missing, or the file is not a causal LM.
    """
    parts = parts_of(path)
    folder = _converted_folder(parts, dtype)
    if _is_complete(folder):
        try:
            return _from_copy(folder, dtype, **options)
        except Exception as error:  # transformers may raise anything for a damaged copy; the GGUF file is intact
            if is_out_of_memory(error):
                raise
            warnings.warn(f"the dequantised copy in {folder} is damaged and is converted again: {error}", stacklevel=2)
            shutil.rmtree(folder, ignore_errors=True)
    elif (folder / _COMPLETE).exists():
        shutil.rmtree(folder, ignore_errors=True)  # a copy made by an earlier version
    headers = read_parts(parts)
    refuse_gguf(headers[0])
    if (read := _read_here(path, headers, dtype)) is not None:
        _keep(*read, folder)
        elsewhere = options.get("device_map") not in (None, "cpu")
        return _from_copy(folder, dtype, **options) if elsewhere else read
    refuse_unread(headers[0])
    with _one_file(headers, folder.parent) as whole:
        model, tokenizer = _read(path, whole, headers, dtype, **options)
    _keep(model, tokenizer, folder)
    return model, tokenizer


def converted_copy(path: Path, dtype: torch.dtype) -> Path | None:
    """Return the folder with the dequantised copy of a GGUF file, or None if there is none yet.

    Args:
        path: the file, or any file of a model in several files.
        dtype: dtype of the copy.

    Raises:
        ModelLoadError: parts are missing.
    """
    folder = _converted_folder(parts_of(path), dtype)
    return folder if _is_complete(folder) else None


def _from_copy(folder: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
    )
    require_all_weights(str(folder), report)
    # AutoTokenizer may choose a family's class, which changes the tokenizer (Qwen's adds a normaliser).
    return model, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _read_here(path: Path, headers: Sequence[GgufHeader], dtype: torch.dtype) -> tuple[Any, Any] | None:
    """Return (model, tokenizer) of a family that `description` knows, or None if the file says what is not known there.

    transformers reads few of these families, and of some not all that the file says, such as the scale of Gemma 3's
    angles. None is returned for those of which it reads all.
    """
    architecture = architecture_of(headers[0])
    if architecture is None or architecture.by_transformers:
        return None
    config = configuration_of(headers)
    if config is None:
        return None
    check_numbers(str(path), config, "its metadata")
    check_tokens(path, headers[0])
    weights = weights_of(MappedTensors(headers), config, dtype, in_blocks=False)
    if weights is None:
        return None
    try:
        model = stored_model(config, weights, dtype)
    except (ValueError, NotDescribedError):  # transformers says what is wrong
        return None
    model.config._name_or_path = str(path)
    if ends := ends_of_answers(headers[0], config["eos_token_id"], config["vocab_size"]):
        model.generation_config.eos_token_id = ends
    return model, tokenizer_of(headers[0])


def _read(
    path: Path, whole: Path, headers: Sequence[GgufHeader], dtype: torch.dtype, **options: Any
) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    check_numbers(str(path), _as_configuration(headers[0]), "its metadata")  # the layers are built from these
    file: dict[str, Any] = {"gguf_file": whole.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(whole.parent, **file)
    tensors = [tensor for header in headers for tensor in header.tensors]
    check_numbers(str(path), config.to_dict(), "its metadata")
    check_tokens(path, headers[0])
    if (rope := rope_of(headers, config)) is not None:
        config.rope_parameters = rope
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    elements = sum(_elements(tensor.shape) for tensor in tensors)
    check_size(str(path), config, model_class, elements, len(tensors))
    # By default transformers leaves the weights packed, which makes matrix products slow on a CPU.
    with _without_bar():
        model, report = AutoModelForCausalLM.from_pretrained(
            whole.parent,
            config=config,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report lists them, and they are refused by name
            **file,
            **options,
        )
    require_all_weights(str(path), report)
    model.config._name_or_path = str(path)
    if unread := elements - sum({id(weight): weight.numel() for weight in model.parameters()}.values()):
        _say_what_is_left(path, unread, elements, tensors)
    if ends := ends_of_answers(headers[0], model.config.eos_token_id, model.config.vocab_size):
        model.generation_config.eos_token_id = ends
    return model, tokenizer_of(headers[0])


@contextmanager
def _without_bar() -> Iterator[None]:
    """Hide the progress bar of dequantising, which transformers draws even if its bars are switched off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    before = reader.tqdm
    reader.tqdm = partial(before, disable=True)
    try:
        yield
    finally:
        reader.tqdm = before


def check_tokens(path: Path, header: GgufHeader) -> None:
    """Refuse a tokenizer that lacks a part, is not known, or whose control tokens are not among its tokens."""
    metadata = header.metadata
    kind, tokens = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.tokens")
    again = "Take another GGUF file of the model, or convert it again with llama.cpp"
    if kind is None or not tokens:
        raise ModelLoadError(f"{path} could not be loaded: its metadata holds no tokenizer. {again}")
    if kind == "gpt2" and not metadata.get("tokenizer.ggml.merges"):
        raise ModelLoadError(
            f"{path} could not be loaded: its tokenizer has no merges (tokenizer.ggml.merges). {again}"
        )
    require_known(header)
    for name in ("bos", "eos"):
        index = metadata.get(f"tokenizer.ggml.{name}_token_id")
        count = tokens if isinstance(tokens, int) else len(tokens)  # the header keeps only the length of a long array
        if type(index) is int and not 0 <= index < count:
            raise ModelLoadError(
                f"{path} could not be loaded: its {name} token has the id {index:,}, but its tokenizer has {count:,} "
                f"tokens. {again}"
            )


def _as_configuration(header: GgufHeader) -> dict[str, Any]:
    """Return the sizes that a file states, under the names that configurations use."""
    prefix = header.architecture
    stated = {name: header.metadata.get(f"{prefix}.{key}") for key, name in _SIZES.items()}
    left_out = (None, 0) if prefix == "mamba" else (None,)  # it has no heads, and no layers beside the recurrent ones
    return {name: value for name, value in stated.items() if value not in left_out}


def ends_of_answers(header: GgufHeader, own: Any, most: int) -> list[int]:
    """Return the ids that end an answer or a turn according to the file, without ids outside the vocabulary.

    Args:
        header: of the file.
        own: the end or ends that the model's configuration states.
        most: size of the vocabulary.
    """
    found = [header.metadata.get(f"tokenizer.ggml.{name}") for name in _ENDS]
    found += own if isinstance(own, list) else [own]
    return sorted({each for each in found if type(each) is int and 0 <= each < most})


def _say_what_is_left(path: Path, unread: int, elements: int, tensors: Sequence[Any]) -> None:
    if unread > 0.001 * elements and unread > 1024:
        warnings.warn(
            f"{path}: {unread:,} of its {elements:,} numbers do not belong to the model that transformers builds "
            f"from it ({len(tensors)} tensors, such as those that predict further tokens) and are not used",
            stacklevel=4,
        )


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


@contextmanager
def _one_file(headers: Sequence[GgufHeader], beside: Path) -> Iterator[Path]:
    """Yield a file that holds all parts: the only file, or a joined one that is removed afterwards."""
    if len(headers) == 1:
        yield headers[0].path
        return
    size = sum(header.path.stat().st_size for header in headers)
    try:
        beside.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(beside).free < size:
            beside = Path(tempfile.gettempdir())
    except OSError:
        beside = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(prefix=".joined-", dir=beside, ignore_cleanup_errors=True) as scratch:
            yield join(headers, Path(scratch) / f"{headers[0].path.stem}.gguf")
    except OSError as error:
        raise ModelLoadError(
            f"{headers[0].path} and its other parts are joined before they are read, which needs {size / 1e9:,.1f} GB "
            f"in {beside}: {error.strerror or error}. Free some space, or set RAPID_HOME to another disk"
        ) from error


def _is_complete(folder: Path) -> bool:
    try:
        return (folder / _COMPLETE).read_text() == _VERSION
    except OSError:
        return False


def _converted_folder(parts: Sequence[Path], dtype: torch.dtype) -> Path:
    """Return the folder for the dequantised copy of these files. A changed file gets another folder."""
    digest = hashlib.sha256()
    for path in parts:
        status = path.resolve().stat()
        digest.update(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{dtype}".encode())
    first = parts[0]
    return models_dir().parent / "dequantised" / f"{first.parent.name}-{first.stem}-{digest.hexdigest()[:16]}"


def _keep(model: Any, tokenizer: Any, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError as error:
        warnings.warn(f"the dequantised model could not be saved, so loading stays slow: {error}", stacklevel=4)
        return
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / _COMPLETE).write_text(_VERSION)
        os.replace(partial, folder)
    # The disk is full (safetensors raises its own error for this), or another process saved an equal copy first.
    except Exception as error:
        if not (folder / _COMPLETE).exists():
            warnings.warn(f"the dequantised model could not be saved, so loading stays slow: {error}", stacklevel=4)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
