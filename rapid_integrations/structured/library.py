"""llguidance, an optional package: imported when a request asks for it."""

from __future__ import annotations

import threading
from types import ModuleType
from weakref import WeakKeyDictionary

from rapid_integrations.errors import ConfigurationError, MissingExtraError
from rapid_integrations.models.vocabulary import Vocabulary

_tokenizers: WeakKeyDictionary[Vocabulary, object] = WeakKeyDictionary()
_lock = threading.Lock()


def load_llguidance(feature: str) -> ModuleType:
    """Return the package.

    Raises:
        MissingExtraError: it is not installed; the message begins with `feature`.
    """
    try:
        import llguidance
    except ImportError:
        raise MissingExtraError(feature=feature, extra="structured") from None
    return llguidance


def llguidance_tokenizer(vocabulary: Vocabulary, feature: str) -> object:
    """Return llguidance's view of a vocabulary: a trie of its tokens' bytes, built once (about a second).

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigurationError: a vocabulary without an eos token: an answer that must end could not.
    """
    llguidance = load_llguidance(feature)
    with _lock:
        if vocabulary not in _tokenizers:
            if not vocabulary.eos_token_ids:
                raise ConfigurationError(
                    f"{feature} needs a model with an end-of-sequence token, and this one's tokenizer has none: "
                    "set its eos_token"
                )
            _tokenizers[vocabulary] = llguidance.LLTokenizer(
                vocabulary.serialized(), eos_token=sorted(vocabulary.eos_token_ids)
            )
        return _tokenizers[vocabulary]
