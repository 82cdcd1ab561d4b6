"""Arguments of a model's chat template beside the messages, such as `enable_thinking=False` for Qwen3."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, Self

from rapid_integrations.errors import ConfigurationError, shown

RESERVED = frozenset(
    "messages conversation conversations tools documents chat_template add_generation_prompt continue_final_message "
    "tokenize sanitize_control_tokens padding truncation max_length return_tensors return_dict "
    "return_assistant_tokens_mask tokenizer_kwargs bos_token eos_token unk_token sep_token pad_token cls_token "
    "mask_token additional_special_tokens extra_special_tokens".split()
)
"""Names that the tokenizer or this package fills in."""
_DEEPEST = 32


class TemplateArguments(Mapping[str, Any]):
    """Names and JSON values, frozen: what is read from it is a copy.

    Args:
        given: the arguments; None stands for no arguments.

    Raises:
        ConfigurationError: it is no mapping of names to JSON values, or a name is reserved.

    Attributes:
        key: the arguments as JSON. Equal keys mean equal arguments; the order of the names does not matter.
    """

    __slots__ = ("key",)

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        if given is None or isinstance(given, TemplateArguments):
            self.key: str = "{}" if given is None else given.key
            return
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"chat_template_kwargs takes a mapping of names to JSON values, not {shown(given)}: give "
                "{'enable_thinking': False}, or the like",
                code="wrong_value",
            )
        for name, value in given.items():
            _require_name(name)
            _require_json(name, value)
        # Below the first level the order stays as it is, because a template may write a value as it iterates over it.
        self.key = json.dumps({name: given[name] for name in sorted(given)})

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.key)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self.key))

    def __len__(self) -> int:
        return len(json.loads(self.key))

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, TemplateArguments) else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"TemplateArguments({self.as_dict()!r})"

    def as_dict(self) -> dict[str, Any]:
        """Return a copy."""
        copy: dict[str, Any] = json.loads(self.key)
        return copy

    def overridden(self, given: Mapping[str, Any] | None) -> TemplateArguments:
        """Return these arguments with those of a request in their place.

        Raises:
            ConfigurationError: see the class.
        """
        if not given:
            return self if given is None or isinstance(given, Mapping) else TemplateArguments(given)
        return TemplateArguments({**self.as_dict(), **TemplateArguments(given).as_dict()})

    def texts(self) -> list[str]:
        """Return every text in them, at any depth, names of inner mappings included."""
        return list(_texts(json.loads(self.key)))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


NO_ARGUMENTS = TemplateArguments()


def _require_name(name: object) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(
            f"chat_template_kwargs names an argument {shown(name)}: names are texts", code="wrong_value"
        )
    if name in RESERVED:
        raise ConfigurationError(
            f"chat_template_kwargs cannot set {name!r}, which is filled in for the chat template: messages, tools and "
            "documents belong to the prompt, and the rest is read from the tokenizer. Leave it out",
            code="reserved_name",
        )


def _require_json(name: str, value: object) -> None:
    if not _is_json(value, 0):
        given = "a number" if isinstance(value, int) else shown(value)  # a huge one cannot be written
        raise ConfigurationError(
            f"chat_template_kwargs[{name!r}] is {given}, which is no JSON value within bounds: give True, False, None, "
            f"a number of at most 64 bits, a text, or a list or mapping of them, nested at most {_DEEPEST} deep",
            code="wrong_value",
        )


def _is_json(value: object, depth: int) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, int):
        return value.bit_length() <= 64
    if value is None or isinstance(value, str):
        return True
    if depth >= _DEEPEST:
        return False
    if isinstance(value, (list, tuple)):
        return all(_is_json(item, depth + 1) for item in value)
    return isinstance(value, dict) and all(
        isinstance(key, str) and _is_json(item, depth + 1) for key, item in value.items()
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
