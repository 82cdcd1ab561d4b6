"""The models of an engine, loaded by name or wrapped. They are released if building the engine fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import ConfigurationError, VocabularyMismatchError, shown
from rapid_integrations.models import loader
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.progress import OnProgress

if TYPE_CHECKING:
    from rapid_integrations.proposers.heads.head import DraftHead


@runtime_checkable
class DrafterService(Protocol):
    """A server whose model can draft for a target, as `RapidEngine(drafter=...)` takes it."""

    def connect(self, target: str, vocabulary: Vocabulary, weight_bytes: int) -> CausalLM:
        """Return the server's model.

        Args:
            target: the target's name, for messages.
            vocabulary: the target's.
            weight_bytes: those of the target; of a model that does not say how large it is, so many are assumed.

        Raises:
            RemoteError: the server does not answer.
            VocabularyMismatchError: its tokenizer is another one.
        """
        ...


@dataclass(frozen=True)
class EngineModels:
    """The models that answer a request.

    Attributes:
        target: the model that reads everything.
        drafter: the model that reads the retrieved chunks; it may be the target itself, or on another machine.
        draft_lm: the model that only proposes; None without one.
        draft_head: a head that was trained for the target; None without one.
        more_drafters: further models that read the drafter's prompt; q is the mean of all drafters.
        vocabulary: the vocabulary of all models.
        vocab_size: V, the number of logits that all models have.
    """

    target: CausalLM
    drafter: CausalLM
    draft_lm: CausalLM | None
    vocabulary: Vocabulary
    vocab_size: int
    draft_head: DraftHead | None = None
    more_drafters: tuple[CausalLM, ...] = ()

    @property
    def self_speculation(self) -> bool:
        """Whether the target drafts for itself, and nobody else does."""
        return self.drafter is self.target and not self.more_drafters

    @property
    def drafters(self) -> str:
        """The names of all drafters, for statistics."""
        return " + ".join(each.name for each in (self.drafter, *self.more_drafters))

    @property
    def all(self) -> tuple[CausalLM, ...]:
        """The models by role. A model with two roles occurs twice."""
        draft_lm = () if self.draft_lm is None else (self.draft_lm,)
        return (self.target, self.drafter, *draft_lm, *self.more_drafters)


class Models(NamedTuple):
    """The loaded models of an engine. With None as drafter, the target drafts for itself."""

    target: LoadedModel
    drafter: LoadedModel | None
    draft_lm: LoadedModel | None
    more_drafters: tuple[LoadedModel, ...] = ()


@contextmanager
def loaded_models(
    target: str | Path,
    drafter: str | Path | None,
    draft_lm: str | Path | None,
    more_drafters: Sequence[str | Path] = (),
    *,
    dtype: str | torch.dtype,
    device: str | torch.device,
    device_map: Any,
    quantization: Quantization | None,
    drafter_quantization: Quantization | None,
    draft_lm_quantization: Quantization | None,
    drafter_dtype: str | torch.dtype | None,
    drafter_device: str | torch.device | None,
    drafter_device_map: Any,
    trust_remote_code: bool,
    verify: Literal["isolated"] | None,
    kv_dtype: KVDtype | None,
    sparse_prefill: float | None,
    on_progress: OnProgress | None,
) -> Iterator[Models]:
    """Load the models of `RapidEngine.from_pretrained`; an error in the block closes them."""
    shared: dict[str, Any] = {
        "trust_remote_code": trust_remote_code,
        "verify": verify,
        "kv_dtype": kv_dtype,
        "sparse_prefill": sparse_prefill,
        "on_progress": on_progress,
    }
    with ExitStack() as on_failure:
        loaded = loader.load(
            target, dtype=dtype, device=device, device_map=device_map, quantization=quantization, **shared
        )
        on_failure.callback(loaded.lm.close)
        other = None
        same = drafter is None or str(drafter) == str(target)
        if not same or drafter_quantization not in (None, quantization):
            other = loader.load(
                target if drafter is None else drafter,
                quantization=drafter_quantization or quantization,
                dtype=drafter_dtype or dtype,
                device=drafter_device or device,
                device_map=_map_of_drafter(device_map, drafter_device, drafter_device_map),
                **shared,
            )
            on_failure.callback(other.lm.close)
        small = None
        if draft_lm is not None:
            small = loaded
            if str(draft_lm) != str(target) or draft_lm_quantization not in (None, quantization):
                small = loader.load(draft_lm, dtype=dtype, device=device, quantization=draft_lm_quantization, **shared)
                on_failure.callback(small.lm.close)
        more = []
        for name in more_drafters:
            if str(name) == str(target) and drafter_quantization in (None, quantization):
                more.append(loaded)
                continue
            more.append(
                loader.load(
                    name,
                    quantization=drafter_quantization or quantization,
                    dtype=drafter_dtype or dtype,
                    device=drafter_device or device,
                    device_map=_map_of_drafter(device_map, drafter_device, drafter_device_map),
                    **shared,
                )
            )
            on_failure.callback(more[-1].lm.close)
        yield Models(loaded, other, small, tuple(more))
        on_failure.pop_all()


def _map_of_drafter(device_map: Any, drafter_device: str | torch.device | None, drafter_device_map: Any) -> Any:
    """Return the drafter's own map. The target's also spreads the drafter, unless that has a device of its own."""
    if drafter_device_map is None and drafter_device is None:
        return device_map
    return drafter_device_map


@contextmanager
def wrapped_models(
    model: Any, tokenizer: Any, drafter_model: Any = None, drafter_tokenizer: Any = None
) -> Iterator[Models]:
    """Take the transformers objects of `RapidEngine.from_models`; an error in the block gives them back."""
    with ExitStack() as on_failure:
        target = loader.wrap(model, tokenizer)
        on_failure.callback(target.lm.close)
        drafter = None
        if drafter_model is not None:
            drafter = loader.wrap(drafter_model, tokenizer if drafter_tokenizer is None else drafter_tokenizer)
            on_failure.callback(drafter.lm.close)
        yield Models(target, drafter, None)
        on_failure.pop_all()  # nothing failed: the engine will close them


def require_objects(model: Any, tokenizer: Any, drafter_model: Any = None, drafter_tokenizer: Any = None) -> None:
    """Refuse anything but transformers models and tokenizers.

    Raises:
        ConfigurationError: an argument is something else. The message says where it belongs.
    """
    for name, given in (("model", model), ("drafter_model", drafter_model)):
        if isinstance(given, (str, Path)):
            raise ConfigurationError(
                f"{name}={str(given)!r} is a name, but {name}=... takes a transformers model. A name goes to "
                f"{'target' if name == 'model' else 'drafter'}={str(given)!r} (RapidEngine.from_pretrained, or the "
                "argument of an LLM)"
            )
        if given is not None and hasattr(given, "tokenizer") and hasattr(getattr(given, "model", None), "forward"):
            raise ConfigurationError(
                f"{name}=... takes a model, not {shown(given)}: a pipeline holds both, so give "
                f"{name}=pipeline.model, {name.removesuffix('model')}tokenizer=pipeline.tokenizer"
            )
        if given is not None and not (hasattr(given, "forward") and hasattr(given, "config")):
            raise ConfigurationError(
                f"{name}=... takes a transformers model (...ForCausalLM), not {shown(given)}; a name goes to target=..."
            )
    for name, given in (("tokenizer", tokenizer), ("drafter_tokenizer", drafter_tokenizer)):
        if isinstance(given, (str, Path)):
            raise ConfigurationError(
                f"{name}={str(given)!r} is a name, but {name}=... takes a tokenizer: "
                f"transformers.AutoTokenizer.from_pretrained({str(given)!r}) loads it. A model that is named "
                "(target=...) brings its own"
            )
        if given is not None and not hasattr(given, "convert_tokens_to_ids"):
            raise ConfigurationError(f"{name}=... takes a transformers tokenizer, not {shown(given)}")
    if tokenizer is None:
        raise ConfigurationError("model=... is a model object, so it needs tokenizer=... beside it")


def require_nothing_to_load(remote: DrafterService | None, settings: Iterable[object]) -> None:
    """Refuse settings for loading a drafter that is not loaded here.

    Raises:
        ConfigurationError: there is one, and the drafter is on another machine.
    """
    if remote is not None and any(each is not None for each in settings):
        raise ConfigurationError(
            "drafter_quantization, drafter_dtype, drafter_device and drafter_device_map say how a drafter is loaded, "
            "but a RemoteDrafter is loaded on its own machine: leave them out"
        )


def require_local(drafter: object, more_drafters: Sequence[LoadedModel]) -> None:
    """Refuse several drafters if one of them is on another machine.

    Raises:
        ConfigurationError: the drafter is, and there are more of them.
    """
    if more_drafters and isinstance(drafter, DrafterService):
        raise ConfigurationError(
            "more_drafters=... beside a RemoteDrafter: a drafter on another machine sends only its best tokens, and is "
            "the only one. Leave out more_drafters, or name a drafter that runs here"
        )


def require_one_vocabulary(target: LoadedModel, *others: LoadedModel | None) -> None:
    """Refuse models that cannot share token ids.

    Raises:
        VocabularyMismatchError: a drafter's tokenizer differs from the target's, or a model has fewer logits than its
            tokenizer has ids.
    """
    for model in (target, *others):
        if model is not None and model.lm.vocab_size <= model.vocabulary.highest_token_id:
            raise VocabularyMismatchError(
                f"{model.lm.name} gives {model.lm.vocab_size:,} logits, but its tokenizer has ids up to "
                f"{model.vocabulary.highest_token_id:,}: they do not belong together"
            )
    for model in others:
        if model is not None:
            target.vocabulary.require_same(model.vocabulary, target.lm.name, model.lm.name)
