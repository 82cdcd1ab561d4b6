"""Loads a model of the Llama family from a GGUF file whose blocks the kernels compute with as they are.

Nothing is dequantised and nothing is written but the tokenizer, a few megabytes. The file is mapped into memory. Its
matrices are put into panels one by one, and what was read of the file is let go of. The embedding table stays in the
file, of which a step reads the rows of its tokens.

The first start of a file converts its tokenizer (`tokenizer`), and compares the model with its family's forward pass
(`comparison`). If nothing differs, that is remembered under a digest of the file's header and of all else that the
result depends on, and later starts need no transformers (see `quick_start`): of families without a `Skeleton` the
description is kept (`kept_model`).
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.config import home
from rapid_integrations.errors import ModelLoadError, NotANumberError
from rapid_integrations.kernels.cpu import NativeDecoder, native_library
from rapid_integrations.models.chat_rendering import check_template
from rapid_integrations.models.config_bounds import check_numbers
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.decoder_widths import columns_of, head_dims_of
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.fingerprint import digest_weights
from rapid_integrations.models.gguf.comparison import compare, model_of, transformers_model
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.parts import parts_of, read_parts
from rapid_integrations.models.gguf.tensors import MappedTensors
from rapid_integrations.models.kept_model import keep, kept_model
from rapid_integrations.models.key_balance import probe_ids
from rapid_integrations.models.positions import UNBOUNDED
from rapid_integrations.models.quick_start import SWITCH, ends_of, environment, same_tokenizer
from rapid_integrations.models.quick_tokenizer import QuickTokenizer
from rapid_integrations.models.rows_when_read import TableWhenRead
from rapid_integrations.models.skeleton import Skeleton
from rapid_integrations.models.stored_model import parameters_of
from rapid_integrations.models.tokenizer_bounds import check_tokenizer
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.packaged.checked import is_checked, key_of, remember
from rapid_integrations.progress import OnProgress, ignore_progress

_DTYPE = torch.bfloat16  # the kernels'
_PROBE_TOKENS = 8  # each reads all weights


class StoredLM(DecoderLM):
    """A `DecoderLM` whose weights lie in the blocks of a GGUF file.

    Args:
        skeleton: its weights and numbers; see `comparison.model_of`.
        name: for messages.
        folder: its configuration and tokenizer.
        config: its configuration, under transformers' names.
        published: see `comparison.model_of`.
    """

    def __init__(
        self, skeleton: Any, name: str, folder: Path, config: dict[str, Any], *, published: bool = False
    ) -> None:
        self._config, self._published = config, published
        longest = getattr(skeleton.config, "max_position_embeddings", None) or UNBOUNDED
        super().__init__(skeleton, name, folder, longest, None)
        if not isinstance(skeleton, Skeleton):
            self.num_parameters = parameters_of(skeleton)
        tables = (each for each in skeleton.modules() if isinstance(each, TableWhenRead))
        self._inputs: TableWhenRead | None = next(tables, None)
        self._reading = threading.RLock()

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`."""
        if self._inputs is None:
            return super().forward(rows)
        with self._reading:  # rows of no pass are given back while it reads them
            self._inputs.rows.compute(torch.cat([each.token_ids for each in rows]))
            return super().forward(rows)

    def store_in_eight_bits(self) -> None:
        """Store the keys and values of new caches in eight bits."""
        if self._inputs is not None:
            with self._reading:
                self._inputs.rows.compute(probe_ids(self.vocab_size, self.device))
                super().store_in_eight_bits()
            return
        super().store_in_eight_bits()

    def fingerprint(self) -> str:
        """Return a digest that identifies this model with its present weights. This reads all weights."""
        own = super().fingerprint()
        if self._inputs is None:
            return own
        digest, stored = hashlib.sha256(own.encode()), self._inputs.stored
        digest_weights(digest, [("inputs", stored.raw)])
        stored.release()
        return digest.hexdigest()

    def transformers_copy(self, dtype: torch.dtype) -> Any:
        """Return the model as transformers runs it, with dequantised weights: in float32 exactly those of the file."""
        with self._fused.latents_lent(self.model):
            return transformers_model(self._config, self.model, dtype, published=self._published)


def stored_configuration(path: Path) -> dict[str, Any] | None:
    """Return what a GGUF file says of its model, under transformers' names, or None for what is not known here.

    Raises:
        ModelLoadError: the file or one of its parts is damaged or missing.
    """
    return configuration_of(read_parts(parts_of(path)))


def load_stored(
    path: Path,
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> tuple[StoredLM, Vocabulary] | None:
    """Return a model with its vocabulary, or None if it is not one that the kernels compute from its blocks.

    They need bfloat16 on a processor. RAPID_QUICK_START=0 and a missing library always return None.

    Args:
        path: a GGUF file, or any file of a model in several.
        name: for messages.
        dtype: to compute in.
        device: to compute on.
        on_progress: is told of the compilation of kernels.

    Raises:
        ModelLoadError: the file or one of its parts is damaged or missing.
        UnsupportedModelError: the model computes something else than transformers' own.
    """
    if dtype != _DTYPE or device.type != "cpu" or os.environ.get(SWITCH) == "0":
        return None
    library = native_library(on_progress or ignore_progress)
    if library is None:
        return None
    headers = read_parts(parts_of(path))
    config = configuration_of(headers)
    if config is None:
        return None
    check_numbers(str(path), config, "its metadata")
    weights = weights_of(MappedTensors(headers), config, _DTYPE)
    if weights is None:
        return None
    digest = _digest(headers)
    key, kept = key_of(digest, environment(_DTYPE, None)), _kept(headers[0].path, digest)
    folder = kept
    known = _tokenizer_of(folder) if is_checked(key) else None
    skeleton: Any = None if known is None else kept_model(folder, weights, config)
    try:
        skeleton = model_of(config, weights) if skeleton is None else skeleton
    except (ValueError, NotDescribedError):  # a weight has a shape that the metadata does not say, or another fault;
        return None  # transformers' way of loading says so
    described = describe(skeleton)
    # PyTorch's operators would unpack the blocks at each step.
    if described.beyond_kernels or not NativeDecoder.serves(library, columns_of(described), *head_dims_of(described)):
        return None
    tokenizer: Any = known
    if known is None:  # what only the first start needs is let go of before the weights are read
        tokenizer, folder = _converted(path, headers[0], config, folder)
        compare(name, config, weights)
        if folder == kept and not isinstance(skeleton, Skeleton):
            keep(folder, skeleton, weights, config)
    _give_memory_back()
    lm = StoredLM(skeleton, name, folder, config)
    if known is None:
        _require_numbers(path, lm)
        if isinstance(tokenizer, QuickTokenizer) and folder == kept:
            remember(key)
    return lm, Vocabulary(tokenizer, ends_of(folder, skeleton, tokenizer))


def _give_memory_back() -> None:
    """Let the system have what was freed; glibc keeps it (25 MB behind a tokenizer of 150,000 tokens)."""
    with suppress(OSError, TypeError, AttributeError):  # another C library, or another system
        ctypes.CDLL(None).malloc_trim(0)


def _tokenizer_of(folder: Path) -> QuickTokenizer | None:
    """Return the tokenizer that an earlier start has kept, or None if it is not there or damaged."""
    try:
        json.loads((folder / "config.json").read_text())
        return QuickTokenizer(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _converted(path: Path, header: GgufHeader, config: dict[str, Any], folder: Path) -> tuple[Any, Path]:
    """Convert the tokenizer; return it, and the folder in which it is kept.

    It is a `QuickTokenizer` if that does the same. The folder is a temporary one of this process if `folder` cannot be
    written.
    """
    from rapid_integrations.models.gguf.converted import check_tokens
    from rapid_integrations.models.gguf.tokenizer import tokenizer_of

    check_tokens(path, header)
    tokenizer = tokenizer_of(header)
    check_tokenizer(str(path), tokenizer)
    check_template(str(path), tokenizer.chat_template)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            _write(header, config, tokenizer, partial)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except Exception as error:  # the disk is full (tokenizers raises its own error), or the folder is read-only
        if _tokenizer_of(folder) is None:  # no other process has kept the same at the same time
            warnings.warn(f"the tokenizer could not be saved, so loading stays slow: {error}", stacklevel=4)
            folder = Path(tempfile.mkdtemp(prefix="rapid-gguf-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            _write(header, config, tokenizer, folder)
    quick = QuickTokenizer(folder)
    return quick if same_tokenizer(tokenizer, quick) else tokenizer, folder


def _write(header: GgufHeader, config: dict[str, Any], tokenizer: Any, folder: Path) -> None:
    from rapid_integrations.models.gguf.converted import ends_of_answers

    tokenizer.save_pretrained(folder)
    ends = ends_of_answers(header, config["eos_token_id"], config["vocab_size"])
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    (folder / "config.json").write_text(json.dumps(config))


def _require_numbers(path: Path, lm: StoredLM) -> None:
    """Refuse weights of which a short text makes NaN."""
    cache = lm.new_cache(_PROBE_TOKENS)
    ids = 7919 * torch.arange(1, _PROBE_TOKENS + 1) % lm.vocab_size
    try:
        lm.forward([Rows(ids, cache, 1)])
    except NotANumberError as error:
        raise ModelLoadError(f"{path} could not be loaded: {error}") from None


def _kept(first: Path, digest: str) -> Path:
    return home() / "gguf" / f"{first.parent.name}-{first.stem}-{digest[:16]}"


def _digest(headers: Sequence[GgufHeader]) -> str:
    """Return a digest of the files' headers and places. A changed file has another one.

    The first start's checks depend on it and on `environment`, and on the weights' own numbers beside.
    """
    digest = hashlib.sha256()
    for header in headers:
        status = header.path.stat()
        digest.update(f"{header.path.resolve()}:{status.st_size}:{status.st_mtime_ns}:".encode())
        with header.path.open("rb") as file:
            digest.update(file.read(header.data_start))
    return digest.hexdigest()
