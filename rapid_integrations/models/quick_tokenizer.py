"""A model folder's tokenizer without transformers, whose tokenizer classes take a second to import.

It has the attributes of a transformers tokenizer that this package reads. Messages of plain text are rendered here, in
a sandbox like transformers' own. Anything else (tools, tool calls, parts of messages) is given to transformers'
own tokenizer, which is loaded then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_PLAIN = {"role", "content"}


class QuickTokenizer:
    """Reads tokenizer.json, tokenizer_config.json and the chat template of a folder.

    Args:
        folder: the model's files.

    Raises:
        OSError, ValueError, KeyError, TypeError: a file is missing, damaged, or says something that is not known here.

    Attributes:
        backend_tokenizer: the `tokenizers.Tokenizer`, without truncation and padding.
        chat_template: the template's text, or None.
        special_tokens_map: the special tokens that have a role, by its name ("eos_token").
        model_max_length: the maximum length in tokens; a huge number if it was never set.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        config = json.loads((folder / "tokenizer_config.json").read_text())
        try:
            self.backend_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()
        template = folder / "chat_template.jinja"
        self.chat_template = template.read_text() if template.exists() else config.get("chat_template")
        if not isinstance(self.chat_template, str | None) or (folder / "additional_chat_templates").exists():
            raise ValueError(f"{folder} has several chat templates")
        self.special_tokens_map = {name: _text(config[name]) for name in _SPECIAL if config.get(name) is not None}
        self.model_max_length = config.get("model_max_length", int(1e30))
        self._folder = folder
        self._templates: dict[str, Any] = {}  # compiled, by their text

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text."""
        return self.special_tokens_map.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text."""
        return self.special_tokens_map.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of `eos_token`."""
        return None if self.eos_token is None else self.convert_tokens_to_ids(self.eos_token)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the tokens with a role."""
        found = {self.convert_tokens_to_ids(token) for token in self.special_tokens_map.values()}
        return sorted(index for index in found if index is not None)

    @cached_property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens (`tokenizers.AddedToken`) by id."""
        return dict(sorted(self.backend_tokenizer.get_added_tokens_decoder().items()))

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of all tokens."""
        vocabulary: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """Return the token of an id, or the tokens of several; None for an id without a token."""
        if isinstance(ids, int):
            return self.backend_tokenizer.id_to_token(ids)
        return [self.backend_tokenizer.id_to_token(index) for index in ids]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a token, or None."""
        index: int | None = self.backend_tokenizer.token_to_id(token)
        return index

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tools: Any = None,
        chat_template: str | None = None,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        **arguments: Any,
    ) -> Any:
        """Return what the chat template writes; see transformers' method of this name."""
        template = chat_template if chat_template is not None else self.chat_template
        if tools is not None or tokenize or template is None or not all(map(_is_plain, conversation)):
            return self.of_transformers.apply_chat_template(
                list(conversation),
                tools=tools,
                chat_template=chat_template,
                tokenize=tokenize,
                add_generation_prompt=add_generation_prompt,
                **arguments,
            )
        return self._compiled(template).render(
            messages=[dict(message) for message in conversation],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **{**self.special_tokens_map, **arguments},
        )

    @cached_property
    def of_transformers(self) -> Any:
        """Transformers' tokenizer of the same folder, loaded when it is first needed."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._folder, local_files_only=True)

    def _compiled(self, template: str) -> Any:
        if template not in self._templates:
            self._templates[template] = _environment().from_string(template)
        return self._templates[template]


def _is_plain(message: Mapping[str, Any]) -> bool:
    return set(message) == _PLAIN and all(type(value) is str for value in message.values())


def _text(token: Any) -> str:
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str):
        raise TypeError(f"{token!r} is not a token")
    return text


def _environment() -> ImmutableSandboxedEnvironment:
    """Return a sandbox that gives templates what transformers' gives them, but for its tag "generation" and `dict`."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _as_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now, "namespace": _Namespace}
    del environment.globals["dict"]
    return environment


class _Namespace(Namespace):
    """Jinja's namespace without names that begin with an underscore, behind which Python's internals lie."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *given = args  # so that a template may name an attribute "self"
        attributes = dict(*given, **kwargs)
        for name in attributes:
            _require_public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"a chat template may not store {name!r} in a namespace")


def _as_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Return JSON without HTML's escapes, which Jinja's own filter writes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> str:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
