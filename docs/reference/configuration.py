"""docs/configuration.md: the settings, from the fields of their models and the signatures of the engine."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from textwrap import fill
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.reference.environment import ENVIRONMENT
from docs.reference.tables import Row, default_text, table, values_of
from langchain_rapid import ChatRapid
from langchain_rapid import RapidLLM as LangChainLLM
from langchain_rapid.rapid_model import RapidModel
from llama_index_rapid import RapidLLM as LlamaIndexLLM
from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.adapters.fields import ModelFields
from rapid_integrations.models import loader

CONFIGURATION = """# Configuration

`make docs-reference` generates this page from the models and signatures themselves, and a test keeps it up to date.
[Command line](command_line.md) has the options of `rapid`. [Tuning](tuning.md) says which setting to change when.

Settings are frozen models. Unknown names and values outside their range raise a `ConfigurationError`. A request uses
the settings of the call, then the engine's, then the defaults below. Lengths are in tokens of the target's tokenizer
unless stated otherwise. The [glossary](glossary.md) defines the symbols (p, q, p_hat, eta, T, K).

## SamplingParams

These settings say how tokens are drawn from the law. Truncations apply to the law (not to target and drafter
separately), in the order top-k, top-p, min-p.

{sampling}

## StructuredOutput

Give exactly one of `json_schema`, `regex` and `grammar`. It is enforced token by token. This needs
`pip install 'rapid-integrations[structured]'`.

{structured}

## SpeculationConfig

These settings choose the law that the output follows, and how tokens are drafted.

{speculation}

## CompressionConfig

The drafter reads the best chunks of the context within a budget, in document order. The budget is
max(ratio * n, min(min_tokens, largest_share * n)) tokens for a context of n tokens. `preset="paper"` stands for
`chunk_tokens=512, search="vectors", neighbours=0, largest_share=1/6`; settings given beside it take precedence.

{compression}

## The engine

`RapidEngine.from_pretrained` takes

{loading}

and, like `RapidEngine.from_models(model, tokenizer, drafter_model=..., drafter_tokenizer=...)`, the arguments of the
engine itself:

{engine}

## A request

`engine.stream`, `generate`, `astream` and `agenerate` take

{request}

## Both frameworks' classes

`llama_index_rapid.RapidLLM`, `langchain_rapid.RapidLLM` and `langchain_rapid.ChatRapid` have every field of
`SamplingParams` and `SpeculationConfig` as their own, `compression` (a `CompressionConfig`) and `chat_template_kwargs`.
A single call takes them, too. `max_tokens` and `stop_sequences` are other names of `max_new_tokens` and `stop`. They
also have these arguments of the engine:

{shared}

Instead of names, they take models as objects:

{models}

## llama_index_rapid.RapidLLM

These fields are added to those of LlamaIndex's own class:

{llama_index}

## langchain_rapid.RapidLLM and ChatRapid

These fields are added to those of LangChain's own classes:

{langchain}

## Environment

{environment}
"""


def configuration() -> str:
    """Return the text of docs/configuration.md."""
    own = (*_own_fields(RapidModel), *_own_fields(LangChainLLM), *_own_fields(ChatRapid))
    engine = {*inspect.signature(RapidEngine.from_pretrained).parameters, *inspect.signature(RapidEngine).parameters}
    return CONFIGURATION.format(
        sampling=_fields(SamplingParams.model_fields.items()),
        structured=table(("field", "what it is"), _structured()),
        speculation=_fields(SpeculationConfig.model_fields.items()),
        compression=_fields(CompressionConfig.model_fields.items()),
        loading=_arguments(RapidEngine.from_pretrained, "options"),
        engine=_arguments(RapidEngine.__init__, "self", "target", "drafter", "draft_lm"),
        request=_arguments(RapidEngine.stream, "self"),
        shared=fill(", ".join(f"`{name}`" for name in ModelFields.model_fields if name in engine), 120),
        models=_fields((name, field) for name, field in ModelFields.model_fields.items() if name not in engine),
        llama_index=_fields(_own_fields(LlamaIndexLLM)),
        langchain=_fields(dict(own).items()),
        environment=table(("variable", "what it is"), ENVIRONMENT),
    )


def _fields(fields: Any) -> str:
    rows: list[Row] = []
    for name, field in fields:
        assert field.description, f"{name} has no description"
        rows.append((f"`{name}`", values_of(field.annotation, field.metadata), _default_of(field), field.description))
    return table(("field", "values", "default", "effect"), rows)


def _default_of(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"`{getattr(field.default_factory, '__name__', '')}()`"
    return default_text(field.default)


def _own_fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields that a class adds to those that it inherits."""
    return [
        (name, model.model_fields[name])
        for name in vars(model).get("__annotations__", {})
        if name in model.model_fields
    ]


def _structured() -> list[Row]:
    described = re.findall(r"^- `(\w+)`: (.*(?:\n  .*)*)", inspect.getdoc(StructuredOutput) or "", re.MULTILINE)
    assert {name for name, _ in described} == StructuredOutput.model_fields.keys()
    return [(f"`{name}`", " ".join(text.split()).rstrip(".")) for name, text in described]


def _arguments(call: Callable[..., Any], *without: str) -> str:
    rows: list[Row] = []
    for name, parameter in inspect.signature(call).parameters.items():
        if name not in without:
            default = "required" if parameter.default is parameter.empty else default_text(parameter.default)
            rows.append((f"`{name}`", f"`{parameter.annotation}`", default, _described(name, call)))
    return table(("argument", "type", "default", "what it is"), rows)


def _described(name: str, call: Callable[..., Any]) -> str:
    """Return what an argument is: from the field of the same name, else from the docstrings."""
    if name in ModelFields.model_fields:
        return ModelFields.model_fields[name].description or ""
    for documented in (call, RapidEngine, loader.load):
        for names, text in re.findall(
            r"^    ((?:\w+, )*\w+): (.*(?:\n        .*)*)", inspect.getdoc(documented) or "", re.MULTILINE
        ):
            if name in names.split(", ") and "see there" not in text:
                return " ".join(text.split()).rstrip(".")
    raise AssertionError(f"{call.__qualname__} does not say what {name} is")
