"""Converts text to token ids and back, and prevents text of documents from becoming control tokens."""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from operator import itemgetter
from typing import Any

from rapid_integrations.errors import (
    ConfigurationError,
    PromptError,
    SharedResource,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from rapid_integrations.models.chat_rendering import render_template
from rapid_integrations.models.panics import panics_taught
from rapid_integrations.models.quick_tokenizer import QuickTokenizer
from rapid_integrations.models.template_names import names_of
from rapid_integrations.models.unfinished import bytes_of, single_byte, without_unfinished
from rapid_integrations.prompt import NO_ARGUMENTS, ChatTemplate, RenderedPrompt, TemplateArguments

_ONE_FAMILY = "Both models must come from one family with one tokenizer"

_OTHER_TOKENIZER = "Change the text at that place, or use a model with another tokenizer"
_BLANK = "\u2581"  # a blank in the tokens of SentencePiece
_LAST = 16  # last tokens that may hold an unfinished character, which has three bytes at most

# Converters name unused vocabulary rows like this: "[PAD151665]", "<unused12>", "<|reserved_special_3|>".
_PLACEHOLDER = re.compile(r"\W*(pad|unused|reserved|extra|dummy|placeholder)\w*\W*", re.IGNORECASE)

# Two tokenizers that agree on these probes agree on pre-tokenization and merges for ordinary text.
_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs, didn't it?\n\n\tTab  and   spaces.",
    "Übergröße naïve façade — “quotes” … 東京は晴れ。Привет! 🙂👩‍👩‍👧 \u200b end",
    "def f(x): return {'a': [1, 2.5e-3], \"b\": None}  # 1234567890 https://example.org/?q=1&r=%20",
)


class Vocabulary(SharedResource):
    """Wraps a fast transformers tokenizer without changing its state, so several threads may use it.

    Args:
        tokenizer: a transformers tokenizer backed by the `tokenizers` library.
        eos_token_ids: the ids that end an answer.

    Attributes:
        template_date: the present for chat templates (Llama 3.1 writes the date at the start of each prompt). It stays
            the time of loading, so a program that runs past midnight still finds its cached prefixes.
    """

    def __init__(self, tokenizer: Any, eos_token_ids: Iterable[int]) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise UnsupportedModelError(
                f"{type(tokenizer).__name__} is not backed by the tokenizers library, which gives exact offsets"
            )
        self.tokenizer = tokenizer
        self.template_date = datetime.now()
        self.eos_token_ids = frozenset(eos_token_ids)
        self._backend = tokenizer.backend_tokenizer
        if not isinstance(tokenizer, QuickTokenizer):
            # A copy, because the user may set truncation or padding on the tokenizer, and nothing may be cut here.
            self._backend = copy.deepcopy(self._backend)
            self._backend.no_truncation()
            self._backend.no_padding()
        template = str(tokenizer.chat_template or "")
        self._spelt: dict[str, list[int]] = {}
        added = tokenizer.added_tokens_decoder
        # An end that is an ordinary token is text. An end that only the GGUF file or the template names is not.
        ends = self.eos_token_ids & added.keys()
        self._special_ids = frozenset(index for index, token in added.items() if token.special) | ends
        # Templates are indented with blanks, for which MPT, GPT-NeoX and OLMo have tokens of their own.
        self._control_ids = ends | {
            index
            for index, token in added.items()
            if token.special or (token.content in template and token.content.strip())
        }

    @property
    def chat_template(self) -> ChatTemplate | None:
        """Renders messages with the opening of the answer; None if the model has no template."""
        if not self.tokenizer.chat_template:
            return None
        return self.render_chat

    def render_chat(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        arguments: TemplateArguments = NO_ARGUMENTS,
    ) -> str:
        """Return what the model's chat template writes.

        Args:
            messages: each has "role", "content" and any other keys that the template reads ("tool_calls", ...).
            tools: declarations for the template; None means no tools.
            add_generation_prompt: append the opening of an answer.
            arguments: of the template; see `require_arguments`.

        Raises:
            PromptError: the template refuses the messages.
        """
        return render_template(
            self.tokenizer, messages, tools, add_generation_prompt, self.template_date, arguments=arguments
        )

    @cached_property
    def template_names(self) -> frozenset[str] | None:
        """The names of the arguments that the chat template reads; None if it cannot be parsed."""
        if not self.tokenizer.chat_template:
            return frozenset()
        names = names_of(self.tokenizer.chat_template)
        return None if names is None else names - set(self.tokenizer.special_tokens_map)

    def require_arguments(self, arguments: TemplateArguments) -> None:
        """Refuse arguments that the chat template does not read, and texts that would become control tokens.

        Raises:
            ConfigurationError: there is one, or the model has no template.
        """
        if not arguments:
            return
        if not self.tokenizer.chat_template:
            raise ConfigurationError(
                f"chat_template_kwargs sets {', '.join(arguments)}, but this model has no chat template: leave it out",
                code="no_chat_template",
            )
        known = self.template_names
        if known is not None and (unknown := [name for name in arguments if name not in known]):
            alike = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.7)
            meant = f". Did you mean {alike[0]!r}?" if alike else ""
            raise ConfigurationError(
                f"chat_template_kwargs sets {unknown[0]!r:.80}, and the model's chat template reads no such name. It "
                f"reads {', '.join(sorted(known)) or 'none at all'}{meant}",
                code="unknown_name",
            )
        control = [token for token, index in self.added_tokens.items() if index in self._control_ids and token]
        for text in arguments.texts():
            if found := next((token for token in control if token in text), None):
                raise ConfigurationError(
                    f"chat_template_kwargs holds the control token {found!r} in a text, which only the chat template "
                    "may write: leave it out",
                    code="wrong_value",
                )

    @property
    def eos_tokens(self) -> list[str]:
        """The tokens that end an answer, as text."""
        return [str(self.tokenizer.convert_ids_to_tokens(index)) for index in sorted(self.eos_token_ids)]

    @property
    def added_tokens(self) -> dict[str, int]:
        """The ids of tokens that stand for a whole string ("<|im_end|>"), by that string."""
        return {token.content: index for index, token in self.tokenizer.added_tokens_decoder.items()}

    @property
    def template_tokens(self) -> int:
        """Tokens that the chat template adds to the contents of a conversation of a few turns."""
        return self.tokens_of_template(NO_ARGUMENTS)

    def tokens_of_template(self, arguments: TemplateArguments) -> int:
        """Return `template_tokens` for a template with arguments."""
        if self.chat_template is None:
            return 1  # a BOS at most
        for roles in (("system", "user", "assistant", "user"), ("user", "assistant", "user"), ("user",)):
            try:
                text = self.render_chat([{"role": role, "content": "x"} for role in roles], arguments=arguments)
            except PromptError:  # not every template takes a system message
                continue
            return len(self._encode(text, add_special_tokens=False).ids)
        return 0

    def encode(self, text: str) -> list[int]:
        """Return the ids of a plain text. Nothing is added, and control tokens in it count as text."""
        prompt = RenderedPrompt(text, ((0, len(text)),), (), "", "plain", templated=True)
        return self.encode_prompt(prompt)

    def encode_prompt(self, prompt: RenderedPrompt) -> list[int]:
        """Return the ids that the model reads.

        A template writes the first control token itself, so none is added then (no double BOS). If a data span (a
        document) holds a control token such as "<|im_end|>", it is spelt out in ordinary tokens instead.
        """
        text = _without_lone_surrogates(prompt.text)
        begins_with_data = bool(prompt.data_spans) and prompt.data_spans[0][0] == 0
        adds_bos = not prompt.templated and (begins_with_data or not self._starts_with_bos(text))
        encoding = self._encode(text, add_special_tokens=adds_bos)
        ids: list[int] = encoding.ids
        found = [at for at, index in enumerate(ids) if index in self._control_ids]
        if not found:
            return ids
        spans = iter(prompt.data_spans)
        span = next(spans, None)
        safe: list[int] = []
        done = 0  # tokens that are in `safe` in one form or the other
        for at in found:
            start, end = encoding.token_to_chars(at) or (0, 0)  # None: the tokenizer added it
            while span is not None and span[1] <= start:
                span = next(spans, None)
            if span is not None and start < span[1] and end > span[0] and end > start:
                safe += ids[done:at]
                safe += self._spell(text[start:end])
                done = at + 1
                if self._puts_blanks and done < len(ids) and ids[done] not in self.tokenizer.added_tokens_decoder:
                    safe += self._without_blank(ids[done])
                    done += 1
        safe += ids[done:]
        return safe

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) characters of each token of a plain text."""
        offsets: list[tuple[int, int]] = self._encode(_without_lone_surrogates(text), add_special_tokens=False).offsets
        return offsets

    def decode(self, token_ids: Sequence[int], keep: frozenset[int] = frozenset()) -> str:
        """Return the text of `token_ids`, without control tokens except those in `keep`."""
        shown = [index for index in token_ids if index in keep or index not in self._special_ids]
        with panics_taught(PromptError, f"putting {len(shown):,} tokens together", _OTHER_TOKENIZER):
            return str(self._backend.decode(shown, skip_special_tokens=not keep))

    def decode_finished(self, token_ids: Sequence[int], keep: frozenset[int] = frozenset()) -> str:
        """Return the text of `token_ids` as `decode` does, without an unfinished character at its end.

        An answer may end between the bytes of a character (at `max_new_tokens`, or because the model stops there).
        """
        shown = [index for index in token_ids if index in keep or index not in self._special_ids]
        last = [
            (index, token)
            for index, token in zip(shown[-_LAST:], self.tokenizer.convert_ids_to_tokens(shown[-_LAST:]), strict=True)
            if token is not None  # a padding row of the logits has no token
        ]
        ids = [*shown[:-_LAST], *(index for index, _ in last)]
        return without_unfinished(ids, [token for _, token in last], lambda some: self.decode(some, keep))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes that a token adds to a text, which may be a part of a character.

        A control token has those of its name, and a padding row of the logits has none.
        """
        token = self.tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if token_id in self.tokenizer.added_tokens_decoder:
            return str(token).encode("utf-8", "surrogatepass")
        if b'"ByteLevel"' in self._decoder_state:
            return bytes_of(token)
        if (byte := single_byte(token)) is not None:
            return byte
        if _BLANK.encode() in self._decoder_state or b'"Metaspace"' in self._decoder_state:
            return str(token).replace(_BLANK, " ").encode()  # decoded alone, it would lose its blank
        return self.decode([token_id]).encode()

    @cached_property
    def _decoder_state(self) -> bytes:
        """What puts tokens together, as JSON."""
        decoder = self._backend.decoder
        return b"" if decoder is None else json.dumps(json.loads(decoder.__getstate__()), ensure_ascii=False).encode()

    def serialized(self) -> str:
        """Return the tokenizer as the `tokenizers` library writes it (tokenizer.json)."""
        return str(self._backend.to_str())

    @cached_property
    def digest(self) -> str:
        """A digest of which string is which token."""
        return hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()

    def require_same(self, other: Vocabulary, name: str, other_name: str) -> None:
        """Raise VocabularyMismatchError unless both vocabularies map the same strings to the same ids.

        Placeholders that only pad one of the two (unused ids) are ignored.
        """
        mine, theirs = self.tokenizer.get_vocab(), other.tokenizer.get_vocab()
        for token in mine.keys() & theirs.keys():
            if mine[token] != theirs[token]:
                raise VocabularyMismatchError(
                    f"{other_name} cannot draft for {name}: {token!r} is token {theirs[token]} there and {mine[token]} "
                    f"here. {_ONE_FAMILY}"
                )
        for token in sorted(mine.keys() ^ theirs.keys()):
            if not _PLACEHOLDER.fullmatch(token):
                owner, stranger = (name, other_name) if token in mine else (other_name, name)
                raise VocabularyMismatchError(
                    f"{other_name} cannot draft for {name}: {owner} has a token {token!r}, {stranger} has none. "
                    f"{_ONE_FAMILY}"
                )
        if self._merges() != other._merges():
            raise VocabularyMismatchError(
                f"{other_name} cannot draft for {name}: their tokenizers merge characters differently. {_ONE_FAMILY}"
            )
        for probe in (*_PROBES, str(self.tokenizer.chat_template or "")):
            if self._encode(probe, add_special_tokens=True).ids != other._encode(probe, add_special_tokens=True).ids:
                raise VocabularyMismatchError(
                    f"{other_name} cannot draft for {name}: their tokenizers split {probe[:40]!r} differently. "
                    f"{_ONE_FAMILY}"
                )

    @property
    def highest_token_id(self) -> int:
        """The largest id that occurs in a text; a model needs a row of logits for it."""
        vocabulary: dict[str, int] = self.tokenizer.get_vocab()
        highest = max(vocabulary, key=vocabulary.__getitem__)
        if not _PLACEHOLDER.fullmatch(highest):
            return vocabulary[highest]
        highest_first = sorted(vocabulary.items(), key=itemgetter(1), reverse=True)
        return next(index for token, index in highest_first if not _PLACEHOLDER.fullmatch(token))

    def _encode(self, text: str, *, add_special_tokens: bool) -> Any:
        """Return the encoding of a text by the tokenizers library.

        Raises:
            PromptError: the tokenizer gives up, as its regular expressions may on some texts.
        """
        with panics_taught(PromptError, f"splitting a text of {len(text):,} characters into tokens", _OTHER_TOKENIZER):
            # The library's `encode` holds Python's lock: a long document would stop all threads, of a server, too.
            return self._backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]

    def _merges(self) -> Any:
        return json.loads(self.serialized())["model"].get("merges")

    def _starts_with_bos(self, text: str) -> bool:
        bos = self.tokenizer.bos_token
        return bool(bos) and text.startswith(bos)

    @cached_property
    def _puts_blanks(self) -> bool:
        """Whether the tokenizer puts a blank before each stretch of text, also behind a control token."""
        normalizer = self._backend.normalizer
        return normalizer is not None and b'"Prepend"' in normalizer.__getstate__()

    def _within(self, text: str) -> list[int]:
        """Return the ids of a stretch that stands within a text."""
        ids: list[int] = self._encode(text, add_special_tokens=False).ids
        return [*self._without_blank(ids[0]), *ids[1:]] if ids and self._puts_blanks else ids

    def _without_blank(self, token_id: int) -> list[int]:
        """Return ids for the text of a token without the blank that was put before it."""
        token = str(self.tokenizer.convert_ids_to_tokens(token_id))
        if not token.startswith(_BLANK):
            return [token_id]
        rest = token.removeprefix(_BLANK)
        ids = self._ids_of([rest] if rest else []) or self._ids_of(rest)
        return [token_id] if ids is None else ids

    def _ids_of(self, tokens: Iterable[str]) -> list[int] | None:
        """Return the ids of tokens; None if one is not in the vocabulary."""
        ids = [self._backend.token_to_id(token) for token in tokens]
        return None if None in ids else ids

    def _spell(self, control: str) -> list[int]:
        """Return ordinary tokens for the characters of a control token; cached, as a document may hold many."""
        if control not in self._spelt:
            self._spelt[control] = self._spelling(control)
        return self._spelt[control]

    def _spelling(self, control: str) -> list[int]:
        for cut in range(1, len(control)):
            ids = [index for part in (control[:cut], control[cut:]) for index in self._within(part)]
            if self._control_ids.isdisjoint(ids) and self.decode(ids) == control:
                return ids
        letters = self._ids_of(control)
        if letters is None or not self._control_ids.isdisjoint(letters):
            raise PromptError(f"the document holds the control token {control!r}, which cannot be spelt out: remove it")
        return letters


def _without_lone_surrogates(text: str) -> str:
    """Return `text` with each lone surrogate (broken UTF-16) replaced by U+FFFD, at the same length."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text
