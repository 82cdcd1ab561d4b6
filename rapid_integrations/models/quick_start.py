"""Loads a model without transformers, if an earlier start has shown that this gives the same model.

The first start of a model loads it through transformers and compares it with its own eager forward pass, which takes
seconds to import. It also builds the model from its files with `Skeleton` and `QuickTokenizer`, and compares every
weight and setting. Of a family without a `Skeleton` it keeps the description (`kept_model`) and which tensors of the
files the weights are (`file_names`), and compares that. If nothing differs, that is remembered (`packaged.checked`)
under a digest of all that the result depends on: the content of the model's files, the arguments, this package's code,
the kernels and the versions of the libraries. Later starts compute it again, and skip transformers if it is known. So
any change repeats the checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import rapid_integrations
from rapid_integrations.config import Quantization, home
from rapid_integrations.kernels.cpu import native_library, native_variant, why_not_native
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.description import settings_of
from rapid_integrations.models.end_tokens import end_token_ids
from rapid_integrations.models.families import describe
from rapid_integrations.models.file_names import sources_of, weights_from
from rapid_integrations.models.fingerprint import digest_weights
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.kept_model import KeptModel, keep, kept_model
from rapid_integrations.models.positions import UNBOUNDED, positions_of
from rapid_integrations.models.quick_tokenizer import QuickTokenizer
from rapid_integrations.models.skeleton import Skeleton, mapped_weights, shape_of
from rapid_integrations.models.template_names import names_of
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.packaged.checked import is_checked, key_of, remember

SWITCH = "RAPID_QUICK_START"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "jinja2")
_CODE = ("models", "kernels", "cache", "prompt")  # folders whose code has a part in the checks
_FILES = "files.json"  # of which tensors the weights are, beside a kept description
_NUMBERS = ("num_hidden_layers", "hidden_size")  # which a configuration may have under other names
_LARGEST_TEXT = 1 << 26  # bytes of a file that is digested whole
_NOBODY_SAID = 1 << 40
_PROBES: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "  What?\n"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ x }} <b> é"}],
    [
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": "Two.\n\n"},
        {"role": "user", "content": ""},
    ],
)


@dataclass(frozen=True)
class QuickModel:
    """A model that was built from its folder without transformers.

    Attributes:
        folder: its files.
        key: the digest of what the checks depend on, in hexadecimal digits.
        dtype: dtype to compute in.
        skeleton: its weights, in the dtype of the files, and its numbers.
        tokenizer: its tokenizer.
        ends: the ids that its settings and its template name as ends of an answer.
    """

    folder: Path
    key: str
    dtype: torch.dtype
    skeleton: Skeleton | KeptModel
    tokenizer: QuickTokenizer
    ends: frozenset[int]

    def remember(self) -> None:
        """Let later starts know that the checks have passed."""
        remember(self.key)

    def loaded(self, name: str, quantization: Quantization | None) -> tuple[DecoderLM, Vocabulary]:
        """Return the model and its vocabulary. The skeleton's weights are taken over."""
        vocabulary = Vocabulary(self.tokenizer, self.ends)
        if isinstance(self.skeleton, Skeleton):  # the other one has its weights in the model's dtypes
            self.skeleton.to(self.dtype)
        lm = DecoderLM(self.skeleton, name, self.folder, self.skeleton.config.max_position_embeddings, quantization)
        return lm, vocabulary

    def equals(self, model: Any, tokenizer: Any) -> bool:
        """Return whether a transformers model and tokenizer of the same folder compute the same.

        Call it before the weights of `model` are taken over.
        """
        return (
            isinstance(self.skeleton, Skeleton)
            and FusedDecoder.serves(model)
            and settings_of(describe(model)) == settings_of(describe(self.skeleton))
            and positions_of(model) == self.skeleton.config.max_position_embeddings
            and model.dtype == self.dtype
            and _same_weights(model, self.skeleton)
            and _same_rotation(model.base_model.rotary_emb, self.skeleton.base_model.rotary_emb)
            and same_tokenizer(tokenizer, self.tokenizer)
            and end_token_ids(model, tokenizer, _renderer(tokenizer)) == self.ends
        )


def quick_model(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    quantization: Quantization | None,
    *,
    unchecked: bool = False,
) -> QuickModel | None:
    """Return the model of a folder that an earlier start has checked, or None if there is none.

    The weights are mapped from their files. RAPID_QUICK_START=0 always returns None.

    Args:
        folder: config.json, tokenizer.json and safetensors files.
        dtype: dtype of the weights.
        device: only a processor is served.
        quantization: of the weights.
        unchecked: also return a model that was not checked yet, to check it. None is then for what only transformers
            can load. The files should have been looked at before, because libraries parse them.
    """
    if device.type != "cpu" or os.environ.get(SWITCH) == "0":
        return None
    try:
        config = json.loads((folder / "config.json").read_text())
        found = shape_of(config)
        kept = _kept_in(folder, dtype, quantization)
        if found is None and (unchecked or not kept.is_dir()):  # to read all weights for the key takes a while
            return None
        weights = mapped_weights(folder)
        key = _key(folder, weights, dtype, quantization)
        if not unchecked and not is_checked(key):
            return None
        skeleton: Skeleton | KeptModel | None
        skeleton = _kept(kept, weights, config) if found is None else Skeleton(found[0], weights, tied=found[1])
        if skeleton is None:
            return None
        tokenizer = QuickTokenizer(folder)
        return QuickModel(folder, key, dtype, skeleton, tokenizer, ends_of(folder, skeleton, tokenizer))
    except Exception:  # a file may be damaged in any way; the usual way of loading says what is wrong
        return None


def keep_description(
    folder: Path, model: Any, tokenizer: Any, device: torch.device, quantization: Quantization | None
) -> str | None:
    """Keep the description of a model that transformers has loaded, for later starts, if it has no `Skeleton`.

    Args:
        folder: the model's files.
        model: before its weights are taken over.
        tokenizer: transformers'.
        device: only a processor is served.
        quantization: that the model is going to have.

    Returns:
        The key to remember when the model has been compared with transformers' own; None: nothing is kept.
    """
    if device.type != "cpu" or os.environ.get(SWITCH) == "0" or not FusedDecoder.serves(model):
        return None
    try:
        config = json.loads((folder / "config.json").read_text())
        quick = QuickTokenizer(folder)
        if (
            shape_of(config) is not None
            or any(config.get(key) for key in ("auto_map", "quantization_config"))
            or (window := _window(model, tokenizer)) is None
            or not same_tokenizer(tokenizer, quick)
            or ends_of(folder, model, quick) != end_token_ids(model, tokenizer, _renderer(tokenizer))
        ):
            return None
        tensors, kept = mapped_weights(folder), _kept_in(folder, model.dtype, quantization)
        sources = sources_of(model, tensors)
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        numbers = {name: getattr(model.config, name) for name in _NUMBERS}
        own = {"numbers": numbers | {"max_position_embeddings": window}, "sources": sources}
        (kept / _FILES).write_text(json.dumps(own))
        if not keep(kept, model, weights_from(sources, tensors), config | own["numbers"]):
            return None
        return _key(folder, tensors, model.dtype, quantization)
    except Exception:  # whatever is wrong, the model has been loaded, and the next start loads it in the same way
        return None


def _window(model: Any, tokenizer: Any) -> int | None:
    """Return the context window that a model has; None: something outside the folder may say it."""
    told, described = positions_of(model), describe(model)
    if told is not None or not described.recurrences or any(each.window is None for each in described.attentions):
        return told
    longest = getattr(tokenizer, "model_max_length", None)
    return longest if type(longest) is int and 0 < longest < _NOBODY_SAID else UNBOUNDED


def _kept(kept: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> KeptModel | None:
    """Return a model whose description `keep_description` has kept, with the tensors of its files."""
    own = json.loads((kept / _FILES).read_text())
    return kept_model(kept, weights_from(own["sources"], tensors), config | own["numbers"])


def _kept_in(folder: Path, dtype: torch.dtype, quantization: Quantization | None) -> Path:
    """Return where a folder's description is kept. What is there counts only under a key that was remembered."""
    place = key_of(str(folder.resolve()), dtype, quantization, _code())
    return home() / "descriptions" / f"{folder.name}-{place[:16]}"


def _key(folder: Path, weights: dict[str, Tensor], dtype: torch.dtype, quantization: Quantization | None) -> str:
    digest = hashlib.sha256()
    digest.update(repr(environment(dtype, quantization)).encode())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.name}:{status.st_size}:".encode())
        if path.suffix == ".safetensors" or status.st_size > _LARGEST_TEXT:
            digest.update(str(status.st_mtime_ns).encode())  # the weights themselves follow
        else:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest_weights(digest, sorted(weights.items()))
    return digest.hexdigest()


def environment(dtype: torch.dtype, quantization: Quantization | None) -> list[Any]:
    """Return what the checks of a model depend on beside its files: arguments, kernels, machine, versions, code."""
    library = native_library() if dtype == torch.bfloat16 else None
    kernels = "" if library is None else _digest_of(Path(library._name))
    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability(), native_variant(), why_not_native()]
    versions = [version(each) for each in _LIBRARIES]
    return [dtype, quantization, kernels, machine, versions, _code()]


def _digest_of(library: Path) -> str:
    """Return what identifies the kernels: their content, or their name, which has a digest of their sources.

    Kernels that could not be kept are loaded from a temporary folder, which is gone by now.
    """
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest()
    except FileNotFoundError:
        return library.name


@lru_cache(maxsize=1)
def _code() -> str:
    """Return a digest of this package's code that loads, checks and runs models."""
    root = Path(rapid_integrations.__file__).parent
    digest = hashlib.sha256(rapid_integrations.__version__.encode())
    for path in sorted(path for folder in _CODE for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}:".encode() + path.read_bytes())
    return digest.hexdigest()


def ends_of(folder: Path, skeleton: Any, tokenizer: QuickTokenizer) -> frozenset[int]:
    """Do what `end_token_ids` does for a transformers model."""
    said = {}
    for name in ("config", "generation_config"):
        path = folder / f"{name}.json"
        said[name] = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    config = SimpleNamespace(eos_token_id=said["config"])
    config.get_text_config = lambda decoder: config
    model = SimpleNamespace(
        config=config,
        generation_config=SimpleNamespace(eos_token_id=said["generation_config"]),
        # A head that is kept in blocks has no numbers.
        get_output_embeddings=lambda: SimpleNamespace(weight=SimpleNamespace(shape=(skeleton.lm_head.out_features,))),
    )
    return end_token_ids(model, tokenizer, _renderer(tokenizer))


def _renderer(tokenizer: Any) -> Any:
    if not tokenizer.chat_template:
        return None
    return lambda messages, opened: tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=opened
    )


def _same_weights(model: Any, skeleton: Skeleton) -> bool:
    theirs, ours = dict(model.named_parameters()), dict(skeleton.named_parameters())
    return theirs.keys() == ours.keys() and all(
        torch.equal(own.to(theirs[name].dtype), theirs[name]) for name, own in ours.items()
    )


def _same_rotation(theirs: Any, ours: Any) -> bool:
    positions = torch.tensor([[0, 1, 2, 1000, 8191, 100_000]])
    x = torch.empty(1, 6, 1)
    return all(torch.equal(own, other) for own, other in zip(ours(x, positions), theirs(x, positions), strict=True))


def same_tokenizer(theirs: Any, ours: QuickTokenizer) -> bool:
    """Return whether transformers' tokenizer gives the same tokens and renders the same messages as ours."""
    backend = theirs.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None:
        backend = type(backend).from_str(backend.to_str())  # a copy takes half a second of a large vocabulary
        backend.no_truncation()
        backend.no_padding()
    longest = [
        None if length is None or not 0 < length < _NOBODY_SAID else length
        for length in (theirs.model_max_length, ours.model_max_length)
    ]
    return (
        backend.to_str() == ours.backend_tokenizer.to_str()
        and theirs.chat_template == ours.chat_template
        and {name: str(token) for name, token in theirs.special_tokens_map.items() if type(token) is not list}
        == ours.special_tokens_map
        and _added(theirs) == _added(ours)
        and longest[0] == longest[1]
        and (not ours.chat_template or _same_texts(theirs, ours))
    )


def _same_texts(theirs: Any, ours: QuickTokenizer) -> bool:
    """Return whether both render the probes alike, as they are and with each switch of the template on and off."""
    switches = [{name: value} for name in sorted(names_of(ours.chat_template) or ()) for value in (False, True)]
    return all(
        _rendered(theirs, probe, given) == _rendered(ours, probe, given)
        for given in [{}, *switches]
        for probe in _PROBES
    )


def _added(tokenizer: Any) -> dict[int, tuple[str, bool]]:
    return {index: (token.content, token.special) for index, token in tokenizer.added_tokens_decoder.items()}


def _rendered(tokenizer: Any, messages: list[dict[str, str]], given: dict[str, bool]) -> list[str]:
    """Return what a template writes, with and without the opening of an answer, or the name of its error."""
    texts = []
    for opened in (False, True):
        try:
            texts.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened, **given))
        except Exception as error:  # a template may refuse system messages, and other things
            texts.append(type(error).__name__)
    return texts
