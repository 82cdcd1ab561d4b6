"""A vocabulary over HTTP: a remote engine counts, cuts and renders with the server's own tokenizer."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from rapid_integrations.errors import RapidError, RemoteError
from rapid_integrations.models.chat_rendering import check_template
from rapid_integrations.models.tokenizer_bounds import check_tokenizer
from rapid_integrations.models.vocabulary import Vocabulary

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def digest_of(vocabulary: Vocabulary) -> str:
    """Return the SHA-256 of a tokenizer as it is written. Equal tokenizers may be written differently."""
    return hashlib.sha256(vocabulary.serialized().encode()).hexdigest()


def sent(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return a vocabulary as JSON."""
    tokenizer = vocabulary.tokenizer
    named = {name: value for name in _ROLES if (value := tokenizer.special_tokens_map.get(name)) is not None}
    return {
        "tokenizer": vocabulary.serialized(),
        "roles": {name: str(value) for name, value in named.items()},
        "chat_template": tokenizer.chat_template or None,
        "eos_token_ids": sorted(vocabulary.eos_token_ids),
        "template_date": vocabulary.template_date.isoformat(),
    }


def received(body: Any, url: str) -> Vocabulary:
    """Return the vocabulary that `sent` made JSON of, within the bounds that hold for a model's own files.

    Raises:
        RemoteError: it is damaged.
        ModelLoadError: it is out of bounds.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        backend = Tokenizer.from_str(body["tokenizer"])
        roles = {name: str(value) for name, value in body["roles"].items() if name in _ROLES}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
        tokenizer.chat_template = body["chat_template"]
        check_template(url, tokenizer.chat_template)
        check_tokenizer(url, tokenizer)
        vocabulary = Vocabulary(tokenizer, [int(index) for index in body["eos_token_ids"]])
        vocabulary.template_date = datetime.fromisoformat(body["template_date"])
    except RapidError:
        raise
    except Exception as error:  # the library raises nothing more precise
        raise RemoteError(f"{url} sent a tokenizer that cannot be read ({error})", code="answer") from error
    return vocabulary
