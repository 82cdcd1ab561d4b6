"""Which models are taken if none is named, and how models are stored."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

Quantization: TypeAlias = Literal["int8", "int4"]
"""How the weights of a model are stored."""

KVDtype: TypeAlias = Literal["int8"]
"""How keys and values are stored, if not in the model's dtype."""

SparsePrefill: TypeAlias = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
"""The share of a block's estimated attention that a sparse prefill reads."""

DEFAULT_TARGET = "smollm2-135m-instruct"
DEFAULT_EMBEDDER = "all-minilm-l6-v2"
