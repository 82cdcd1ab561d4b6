"""The fields that the LLM classes of both frameworks share, and the engine and request options made from them.

Both frameworks' classes are pydantic models. They inherit these typed and documented fields and stay thin.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from rapid_integrations.adapters.argument_names import MODEL_ALIASES, TRANSPORT, own_names
from rapid_integrations.adapters.given_engine import require_engine
from rapid_integrations.config import (
    DEFAULT_TARGET,
    SETTING_ALIASES,
    CompressionConfig,
    KVDtype,
    Quantization,
    SamplingFields,
    SamplingParams,
    Settings,
    SparsePrefill,
    SpeculationConfig,
    SpeculationFields,
    refuse_unknown,
)
from rapid_integrations.engine.loaded_engines import LOADED_ENGINES, Hold
from rapid_integrations.engine.loading_key import Key, key_of_model, key_of_name, key_of_tokenizer
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import TemplateArguments

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import RapidEngine

_OBJECTS = ("engine", "model", "tokenizer", "drafter_model", "drafter_tokenizer")
NAMED = (
    "target",
    "drafter",
    "dtype",
    "device",
    "device_map",
    "quantization",
    "drafter_quantization",
    "draft_lm",
    "draft_lm_quantization",
    "more_drafters",
    "drafter_dtype",
    "drafter_device",
    "drafter_device_map",
    "trust_remote_code",
    "verify",
    "kv_dtype",
    "sparse_prefill",
)
_ENGINE_OPTIONS = (
    "draft_head",
    "embedding_cache",
    "kv_cache_bytes",
    "prefix_cache_bytes",
    "prefix_cache_dir",
    "prefix_cache_dir_bytes",
    "template_date",
)
TEMPLATE_ARGUMENTS = "chat_template_kwargs"
_REQUEST_OPTIONS = ("compression", "tools", "tool_choice", "parallel_tool_calls", "on_progress")


class RequestFields(SamplingFields, SpeculationFields):
    """The settings that may differ between two requests: sampling, speculation, compression and template arguments."""

    compression: CompressionConfig = Field(
        default_factory=CompressionConfig, description="how the drafter's context is compressed"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the model's chat template, such as {'enable_thinking': False}: names that it reads, "
        "and JSON values. Those of a call are put over them",
    )

    @field_validator("chat_template_kwargs", mode="before")
    @classmethod
    def _template_arguments(cls, given: Any) -> dict[str, Any]:
        return TemplateArguments(given).as_dict()

    def request_options(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `RapidEngine.stream` for a request that overrides some settings.

        Args:
            overrides: settings under this package's names or other libraries' (`argument_names`). Arguments about a
                server (`TRANSPORT`) and None values are ignored.

        Raises:
            ConfigurationError: an override has an unknown name or an invalid value.
        """
        known = [*SamplingFields.model_fields, *SpeculationFields.model_fields, *_REQUEST_OPTIONS, TEMPLATE_ARGUMENTS]
        wanted = {name: value for name, value in overrides.items() if name not in TRANSPORT and value is not None}
        given = own_names(_unpacked(wanted, known), known, SETTING_ALIASES)
        options: dict[str, Any] = {name: given.pop(name) for name in _REQUEST_OPTIONS if name in given}
        sampling = _pick(SamplingFields, given)
        speculation = _pick(SpeculationFields, given)
        for name in given:
            if name == "model" or MODEL_ALIASES.get(name, name) in ModelFields.model_fields:
                raise ConfigurationError(
                    f"{name}={given[name]!r:.80} for one call: what is loaded is chosen when a {type(self).__name__} "
                    "is built. Build a second one; models that both use are loaded once"
                )
        refuse_unknown(type(self).__name__, given, known, SETTING_ALIASES, " for a call")
        if arguments := TemplateArguments(self.chat_template_kwargs).overridden(given.pop(TEMPLATE_ARGUMENTS, None)):
            options[TEMPLATE_ARGUMENTS] = arguments
        compression = options.pop("compression", self.compression)
        if isinstance(compression, Mapping):
            compression = CompressionConfig(**compression)
        return {
            "sampling": SamplingParams(**(_values(self, SamplingFields) | sampling)),
            "speculation": SpeculationConfig(**(_values(self, SpeculationFields) | speculation)),
            "compression": compression,
            **options,
        }


class ModelFields(BaseModel):
    """The models to load and how to load them, or loaded models, or an engine."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    target: str = Field(
        default=DEFAULT_TARGET,
        description="the main model, which reads the whole prompt: a packaged name (`rapid models list`), a folder "
        "with safetensors or one GGUF file, a GGUF file, or a hub name",
    )
    drafter: str | None = Field(
        default=None,
        description="a larger or smaller model with the same tokenizer, which reads the retrieved chunks. With None, "
        "the target drafts for itself on one copy of the weights",
    )
    dtype: str = Field(
        default="auto",
        description='the number format of the computation: "float32", "bfloat16" or "float16". "auto" follows the '
        "model and the processor (bfloat16 if it is fast)",
    )
    device: str = Field(
        default="auto", description='"cpu", "cuda", "cuda:1" or "mps"; "auto" is CUDA if available, else the CPU'
    )
    device_map: Any = Field(
        default=None,
        description="spreads the target over devices, as in transformers and accelerate; replaces device",
    )
    quantization: Quantization | None = Field(
        default=None,
        description="quantises the target's weights to 8 or 4 bits, except the embedding table and the head. This "
        "saves memory, int4 is also faster on CPU, and quality drops slightly. None does not quantise",
    )
    drafter_quantization: Quantization | None = Field(
        default=None,
        description="the same for the drafter's weights; None: as for the target. Without a drafter, a quantised copy "
        "of the target drafts",
    )
    draft_lm: str | None = Field(
        default=None,
        description='a model that only proposes (proposer "draft_lm" or "hybrid"). It pays if the drafter is larger '
        "than the target. The target's own name shares its weights",
    )
    draft_lm_quantization: Quantization | None = Field(
        default=None, description="the same for draft_lm; None does not quantise"
    )
    more_drafters: tuple[str, ...] = Field(
        default=(),
        description="further models that read the drafter's prompt, loaded as the drafter is. q is then the mean of "
        "all drafters, with drafter_weights. The target's own name shares its weights",
    )
    draft_head: str | None = Field(
        default=None,
        description="the folder or hub name of a trained head (EAGLE, Medusa, Hydra, or layers that predict further "
        "tokens), which proposes from the target's hidden states (proposer "
        '"draft_head", "draft_head_tree" or "hybrid")',
    )
    drafter_dtype: str | None = Field(default=None, description="dtype of the drafter; None: as for the target")
    drafter_device: str | None = Field(default=None, description="device of the drafter; None: as for the target")
    drafter_device_map: Any = Field(default=None, description="device_map of the drafter; None: as for the target")
    trust_remote_code: bool = Field(
        default=False, description="runs Python code that comes with a model. Leave it off unless you trust its author"
    )
    verify: Literal["isolated"] | None = Field(
        default=None,
        description='"isolated" first reads a model\'s configuration, tokenizer and chat template in a separate '
        "process, which takes some seconds. Use it for folders from people you do not trust",
    )
    kv_dtype: KVDtype | None = Field(
        default=None,
        description='"int8" stores keys and values in eight bits: half of the memory and of the files in '
        "prefix_cache_dir, and slightly other answers. It needs a described family on the processor. None stores them "
        "in the model's dtype",
    )
    sparse_prefill: SparsePrefill | None = Field(
        default=None,
        description="reads prompts with sparse attention, which is faster for long documents and changes answers: the "
        "share of a block's estimated attention that is read, such as 0.9. It needs a described family with full "
        "attention on the processor. None reads all",
    )
    embedding_cache: str | Path | None = Field(
        default=None,
        description="an SQLite file that keeps embeddings between runs; None takes embeddings.sqlite in "
        "prefix_cache_dir, and memory without such a folder",
    )
    kv_cache_bytes: int | Literal["auto"] = Field(
        default="auto",
        description="bytes for the KV caches of running requests. Further requests wait until there is room. "
        '"auto" is half of the memory that is free when the engine is built',
    )
    prefix_cache_bytes: int | Literal["auto"] = Field(
        default="auto",
        description='bytes for the KV caches of finished requests. "auto" is a quarter of the memory that is free '
        "when the engine is built, on a GPU three eighths; 0 prefills every prompt from its start. Running requests "
        "need memory on top, see kv_cache_bytes",
    )
    prefix_cache_dir: str | Path | None = Field(
        default=None, description="a folder that also keeps these caches between runs; None keeps none"
    )
    prefix_cache_dir_bytes: int | Literal["auto"] = Field(
        default="auto",
        description='maximum size of the files in prefix_cache_dir, in bytes. "auto" is a quarter of the free space '
        "there plus the size of the present files",
    )
    template_date: date | None = Field(
        default=None,
        description="the day that chat templates such as Llama 3.1's write at the start of a prompt; None takes the "
        "day on which the model was loaded. The caches in prefix_cache_dir only fit prompts with the same day, so set "
        "it there",
    )

    base_url: str | None = Field(
        default=None,
        description="a RAPID server (`rapid serve`) whose engine answers, as in http://127.0.0.1:8080, in place of all "
        "fields about models and caches",
    )
    api_key: SecretStr | None = Field(
        default=None,
        exclude=True,
        repr=False,
        description="the key of the server at base_url; has no effect without one",
    )

    engine: Any = Field(
        default=None,
        exclude=True,
        repr=False,
        description="a RapidEngine object, in place of all fields about models and caches",
    )
    model: Any = Field(
        default=None, exclude=True, repr=False, description="a transformers model in place of target; needs tokenizer"
    )
    tokenizer: Any = Field(default=None, exclude=True, repr=False, description="the tokenizer of model")
    drafter_model: Any = Field(
        default=None, exclude=True, repr=False, description="a transformers model that drafts, beside model"
    )
    drafter_tokenizer: Any = Field(
        default=None, exclude=True, repr=False, description="the tokenizer of drafter_model; None: that of model"
    )

    def open_engine(self, on_progress: OnProgress | None = None, holder: Hold | None = None) -> RapidEngine:
        """Return the given engine, or one for the given or named models.

        The same settings return the same engine while it has a holder and no file of the models changes.

        Args:
            on_progress: called while models load.
            holder: keeps the engine open until it is released. With None, nothing closes the engine.

        Raises:
            ConfigurationError: settings exclude each other.
            ModelLoadError: a model cannot be loaded or run.
        """
        from rapid_integrations.engine.engine import RapidEngine

        given = self.given_names(ModelFields.model_fields) - {"api_key"}
        if self.engine is not None:
            _refuse_beside("engine", given - {"engine"})
            require_engine(self.engine)
            engine: RapidEngine = self.engine
            return engine
        if self.base_url is not None:
            if others := given - {"base_url", "embedding_cache"}:
                raise ConfigurationError(
                    f"the server at base_url={self.base_url!r} has loaded its models, so {', '.join(sorted(others))} "
                    "would have no effect: give one or the other"
                )
            url, key = self.base_url, None if self.api_key is None else self.api_key.get_secret_value()

            def connect() -> RapidEngine:
                return RapidEngine.connect(url, api_key=key)

            digest = hashlib.sha256((key or "").encode()).hexdigest()
            return LOADED_ENGINES.get(lambda: ("server", url, digest), connect, holder or Hold())
        options: dict[str, Any] = {name: getattr(self, name) for name in _ENGINE_OPTIONS}
        if self.model is not None:
            objects = {*_OBJECTS, *_ENGINE_OPTIONS} - {"engine"}
            _refuse_beside("model", given - objects)

            def load() -> RapidEngine:
                return RapidEngine.from_models(
                    self.model,
                    self.tokenizer,
                    drafter_model=self.drafter_model,
                    drafter_tokenizer=self.drafter_tokenizer,
                    **options,
                )

            return LOADED_ENGINES.get(self._key_of_objects, load, holder or Hold())
        _refuse_without("model", given & {"tokenizer", "drafter_model", "drafter_tokenizer"})
        names = {name: getattr(self, name) for name in NAMED}

        def load_names() -> RapidEngine:
            return RapidEngine.from_pretrained(**names, on_progress=on_progress, **options)

        return LOADED_ENGINES.get(self._key_of_names, load_names, holder or Hold())

    def given_names(self, names: Collection[str]) -> set[str]:
        """Return which of these fields were given a value other than their default.

        LangChain's `configurable_fields` builds an LLM with the values of all fields of another one. In that case,
        values that equal the default do not count.
        """
        fields = type(self).model_fields
        every = all(name in self.model_fields_set or getattr(self, name) is None for name in fields)  # None: not given

        def differs(name: str) -> bool:
            value = getattr(self, name)
            return value is not None and not (
                every and _same(value, fields[name].get_default(call_default_factory=True))
            )

        return {name for name in names if name in self.model_fields_set and differs(name)}

    def _key_of_names(self) -> Key:
        models = tuple(key_of_name(name) for name in (self.target, self.drafter, self.draft_lm, *self.more_drafters))
        settings = tuple(repr(getattr(self, name)) for name in NAMED)
        return ("names", models, settings, self._key_of_options())

    def _key_of_objects(self) -> Key | None:
        models = [key_of_model(model) for model in (self.model, self.drafter_model)]
        tokenizers = [key_of_tokenizer(each) for each in (self.tokenizer, self.drafter_tokenizer)]
        return None if None in models else ("objects", *models, *tokenizers, self._key_of_options())

    def _key_of_options(self) -> Key:
        places = (None if place is None else str(Path(place).expanduser().absolute()) for place in self._places())
        others = (self.kv_cache_bytes, self.prefix_cache_bytes, self.prefix_cache_dir_bytes, self.template_date)
        switches = (os.environ.get(name) for name in ("RAPID_NATIVE", "RAPID_CUDA"))
        return (*places, *others, key_of_name(self.draft_head), *switches)

    def _places(self) -> tuple[str | Path | None, ...]:
        return (self.embedding_cache, self.prefix_cache_dir)


def as_it_is(options: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Change the options of a request so that the model reads its prompt without the chat template.

    Arguments of the template that a class has for all calls are left out. Those of the call are refused by the engine.
    """
    options["apply_chat_template"] = False
    if not overrides.get(TEMPLATE_ARGUMENTS):
        options.pop(TEMPLATE_ARGUMENTS, None)


def engine_defaults(engine: RapidEngine) -> dict[str, Any]:
    """Return an engine's default settings as field values, for an LLM over that engine."""
    return {
        **_values(engine.sampling, SamplingFields),
        **_values(engine.speculation, SpeculationFields),
        "compression": engine.compression,
        TEMPLATE_ARGUMENTS: engine.chat_template_kwargs.as_dict(),
    }


def _unpacked(given: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return a call's arguments with the settings of `extra_body` unpacked, in which callers of vLLM send them."""
    flat = {name: value for name, value in given.items() if name != "extra_body"}
    body = given.get("extra_body")
    for name, value in body.items() if isinstance(body, Mapping) else ():
        if SETTING_ALIASES.get(name, name) in known and name not in _REQUEST_OPTIONS:
            flat.setdefault(name, value)
    return flat


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _pick(fields: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    return {name: given.pop(name) for name in fields.model_fields if name in given}


def _values(settings: Settings | BaseModel, fields: type[BaseModel]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in fields.model_fields}


def _refuse_beside(name: str, others: set[str]) -> None:
    if others:
        raise ConfigurationError(
            f"{name}=... is loaded already, so {', '.join(sorted(others))} would have no effect: give one or the other"
        )


def _refuse_without(name: str, others: set[str]) -> None:
    if others:
        raise ConfigurationError(f"{', '.join(sorted(others))} goes with {name}=..., which was not given")
