"""The families that are described by data, by the names of their classes in transformers.

A family is one module here, with a function that describes a model and `CLASSES`, which says of which classes it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from rapid_integrations.models.description import Decoder, NotDescribedError, matrices, parameters
from rapid_integrations.models.families import (
    cohere,
    gemma,
    glm,
    glm_moe,
    gpt_oss,
    granite,
    hunyuan,
    llama,
    mixtral,
    olmo,
    phi,
    starcoder,
)
from rapid_integrations.models.skeleton import Skeleton, SkeletonLinear

_MODULES = (
    *(cohere, gemma, glm, glm_moe, gpt_oss, granite, hunyuan),
    *(llama, mixtral, olmo, phi, starcoder),
)
FAMILIES: dict[str, Callable[[Any], Decoder]] = {
    name: describe for module in _MODULES for name, describe in module.CLASSES.items()
}


def describe(model: Any) -> Decoder:
    """Describe a model of a known family.

    Raises:
        NotDescribedError: the family is not known, or a part of the model is not.
    """
    name = type(model).__name__
    if name not in FAMILIES:
        raise NotDescribedError(f"{name} has no description")
    try:
        described = FAMILIES[name](model)
    except AttributeError as error:  # another version of the family has other parts
        raise NotDescribedError(f"{name} is not as its description expects it: {error}") from error
    linear = SkeletonLinear if isinstance(model, Skeleton) else nn.Linear
    if other := next((each for each in matrices(described) if type(each) is not linear), None):
        raise NotDescribedError(f"{name} has a {type(other).__name__} where a plain matrix is expected")
    return described


def left_over(model: Any, described: Decoder) -> list[str]:
    """Return the names of the parameters that a description does not name."""
    known = {id(each) for each in parameters(described)}
    return [name for name, each in model.named_parameters() if id(each) not in known]
