"""GGUF files, dequantised once and kept as safetensors.

Reading a GGUF file through Python takes seconds per hundred megabytes (its token lists alone are parsed three times:
for the configuration, the tokenizer and the weights). The first load therefore keeps what it produced as an ordinary
model folder; later loads take a fraction of a second.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from rapid_integrations.models.packaged import models_dir

_COMPLETE = "complete"  # written last: a folder without it is the rest of an interrupted conversion


def load_gguf(path: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    """Return (model, tokenizer) from a GGUF file, every weight dequantised to `dtype`.

    Args:
        path: the file.
        dtype: of the weights.
        options: further arguments of transformers' `from_pretrained` (`device_map`, ...).
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = _converted_folder(path, dtype)
    if (folder / _COMPLETE).exists():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, **options
            )
            return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever a damaged file makes transformers raise; the GGUF file has it all
            warnings.warn(f"the dequantised copy in {folder} is damaged and made again: {error}", stacklevel=2)
            shutil.rmtree(folder, ignore_errors=True)
    model, tokenizer = _read(path, dtype, **options)
    _keep(model, tokenizer, folder)
    return model, tokenizer


def _read(path: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # transformers otherwise leaves the weights packed, in a form whose matrix products are slow on a processor.
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
        **options,
    )
    return model, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)


def _converted_folder(path: Path, dtype: torch.dtype) -> Path:
    """Return where the dequantised copy of this very file lies: a changed file gets another folder."""
    status = path.resolve().stat()
    identity = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{dtype}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return models_dir().parent / "dequantised" / f"{path.parent.name}-{path.stem}-{digest}"


def _keep(model: Any, tokenizer: Any, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    except OSError as error:
        warnings.warn(f"the dequantised model is not kept, loading stays slow: {error}", stacklevel=4)
        return
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / _COMPLETE).touch()
        os.replace(partial, folder)
    # A full disk (safetensors has an error of its own for it); or another process was first, whose copy is as good.
    except Exception as error:
        if not (folder / _COMPLETE).exists():
            warnings.warn(f"the dequantised model is not kept, loading stays slow: {error}", stacklevel=4)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
