"""Checks that a tokenizer's files are plausible, before the tokenizers library reads them.

The tokenizers library does whatever its file says. It carries out a replacement of one letter by a million, and no
error can free that memory again. Real files stay far below these bounds.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.folder_kinds import depth, read_json
from rapid_integrations.models.safetensors_files import is_lfs_pointer, pointer_words

_LARGEST = 256 << 20  # bytes of tokenizer.json
_LARGEST_MODEL = 64 << 20  # bytes of a SentencePiece model
_DEEPEST = 32
_MOST_ADDED = 300_000
_LONGEST_ADDED = 4096  # characters
_LONGEST_PATTERN = 16_384
_MOST_GROWTH = 64.0  # one character may become at most this many
_LARGEST_MAP = 8 << 20  # bytes of a precompiled map
_LONGEST_MAPPED = 1024  # bytes that a character may be mapped to
_MOST_PIECES = 64  # of a template for special tokens
_LONGEST_AFFIX = 256
# Name endings of files that hold a vocabulary: tokenizers, SentencePiece, tiktoken and Mistral's.
_VOCABULARIES = (".model", ".tiktoken", "vocab.json", "vocab.txt", "tekken.json")
_SECTIONS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def _require_vocabulary(folder: Path) -> None:
    """Refuse a folder without any tokenizer file, unless the model's own code brings a tokenizer."""
    names = {path.name for path in folder.iterdir()}
    if any(name.endswith(_VOCABULARIES) for name in names):
        return
    if "tokenizer_config.json" in names and "auto_map" in read_json(folder / "tokenizer_config.json"):
        return
    raise ModelLoadError(
        f"{folder} could not be loaded: it has no tokenizer.json, nor another tokenizer's files. Fetch them from where "
        "the model comes from"
    )


def check_tokenizer_files(folder: Path) -> None:
    """Check tokenizer.json, tokenizer_config.json and SentencePiece models of a folder.

    Raises:
        ModelLoadError: a file exceeds a bound; the message has the file, its content and the bound.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"):
        if (folder / name).exists():
            content = read_json(folder / name)
            _check_added(folder / name, content)
    for path in [*folder.glob("*.model"), folder / "chat_template.jinja"]:
        if path.exists() and path.stat().st_size > _LARGEST_MODEL:
            raise _too_much(path, f"{path.stat().st_size / 1e6:,.0f} MB", f"{_LARGEST_MODEL / 1e6:,.0f} MB at most")
    path = folder / "tokenizer.json"
    if not path.exists():
        _require_vocabulary(folder)
        return
    if path.stat().st_size > _LARGEST:
        raise _too_much(path, f"{path.stat().st_size / 1e6:,.0f} MB", f"{_LARGEST / 1e6:,.0f} MB at most")
    if is_lfs_pointer(path):
        raise ModelLoadError(pointer_words(path))
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} could not be loaded: {error}. Fetch it again") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} could not be loaded: it holds a {type(content).__name__}, not an object")
    if depth(content) > _DEEPEST:
        raise ModelLoadError(f"{path} could not be loaded: it is nested more than {_DEEPEST} deep")
    _check(path, content)


def check_tokenizer(name: str, tokenizer: Any) -> None:
    """Check a loaded tokenizer, whatever file it came from (a SentencePiece model, a GGUF file).

    Raises:
        ModelLoadError: see `check_tokenizer_files`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    for section in ("normalizer", "pre_tokenizer", "decoder"):
        try:
            part = getattr(backend, section, None)
            content = None if part is None else json.loads(part.__getstate__())
        except Exception:  # a part in Python code cannot be serialised and checked
            continue
        _check_section(name, content, section)


def _check(source: object, content: Mapping[str, Any]) -> None:
    added = content.get("added_tokens")
    if isinstance(added, list):
        _check_tokens(source, added)
    for section in _SECTIONS:
        _check_section(source, content.get(section), section)
    model = content.get("model")
    if isinstance(model, Mapping):
        for field in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token"):
            value = model.get(field)
            if isinstance(value, str) and len(value) > _LONGEST_AFFIX:
                raise _too_much(source, f"{field} of {len(value):,} characters", f"{_LONGEST_AFFIX} at most")


def _check_section(source: object, section: Any, name: str) -> None:
    if section is None:
        return
    if depth(section) > _DEEPEST:
        raise _too_much(source, f"a {name} nested more than {_DEEPEST} deep", "real ones are nested two or three deep")
    growth = 1.0
    for part in _parts(section):
        growth *= _growth(source, part)
        if growth > _MOST_GROWTH:
            raise _too_much(
                source,
                f"a {name} that makes {growth:,.0f} characters or more of one",
                f"{_MOST_GROWTH:.0f} at most; texts would fill all memory",
            )
        for template in ("single", "pair"):
            if isinstance(part.get(template), list) and len(part[template]) > _MOST_PIECES:
                raise _too_much(source, f"a {name} of {len(part[template]):,} pieces", f"{_MOST_PIECES} at most")


def _parts(section: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object inside `section` that has a type."""
    stack = [section]
    while stack:
        here = stack.pop()
        if isinstance(here, Mapping):
            if "type" in here:
                yield here
            stack.extend(here.values())
        elif isinstance(here, list):
            stack.extend(here)


def _growth(source: object, part: Mapping[str, Any]) -> float:
    """Return the most characters that a part of a tokenizer makes of one."""
    kind = part.get("type")
    pattern = part.get("pattern")
    if isinstance(pattern, Mapping):
        expression = pattern.get("Regex", pattern.get("String"))
        if isinstance(expression, str) and len(expression) > _LONGEST_PATTERN:
            raise _too_much(source, f"a pattern of {len(expression):,} characters", f"{_LONGEST_PATTERN:,} at most")
    if kind == "Replace" and isinstance(part.get("content"), str):
        of = pattern.get("String") if isinstance(pattern, Mapping) else None
        # A regular expression may match the empty string, and so match at every position.
        return len(part["content"]) / len(of) if isinstance(of, str) and of else 1.0 + len(part["content"])
    for field in ("prepend", "prefix", "suffix", "replacement", "cls", "sep"):
        value = part.get(field)
        if isinstance(value, str) and len(value) > _LONGEST_AFFIX:
            raise _too_much(source, f"{field} of {len(value):,} characters", f"{_LONGEST_AFFIX} at most")
    if kind == "Precompiled":
        _check_map(source, part.get("precompiled_charsmap"))
    return 1.0


def _check_map(source: object, given: Any) -> None:
    """Check a precompiled map (SentencePiece's): its table's length, the table, and texts that each end with a zero."""
    if not isinstance(given, str) or len(given) > 2 * _LARGEST_MAP:
        size = f"{len(given):,} characters" if isinstance(given, str) else type(given).__name__
        raise _too_much(source, f"a precompiled map of {size}", f"{_LARGEST_MAP:,} bytes at most")
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ModelLoadError(f"{source} could not be loaded: its precompiled map is damaged ({error})") from error
    if not data:
        return
    table = struct.unpack_from("<I", data)[0] if len(data) >= 4 else -1
    if table < 0 or table % 4 or 4 + table > len(data):
        raise ModelLoadError(f"{source} could not be loaded: the table of its precompiled map ends behind the map")
    longest = max(map(len, data[4 + table :].split(b"\0")), default=0)
    if longest > _LONGEST_MAPPED:
        raise _too_much(
            source, f"a precompiled map that makes {longest:,} bytes of a character", f"{_LONGEST_MAPPED:,} at most"
        )


def _check_added(path: Path, content: Mapping[str, Any]) -> None:
    added = content.get("added_tokens_decoder")
    if isinstance(added, Mapping):
        _check_tokens(path, [entry if isinstance(entry, Mapping) else {} for entry in added.values()])
        if any(not index.isdecimal() or int(index) > 1 << 26 for index in added if len(index) < 30):
            raise _too_much(path, "added tokens with ids that no vocabulary has", f"{1 << 26:,} at most")


def _check_tokens(source: object, tokens: list[Any]) -> None:
    if len(tokens) > _MOST_ADDED:
        raise _too_much(source, f"{len(tokens):,} added tokens", f"{_MOST_ADDED:,} at most")
    for token in tokens:
        text = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(text, str) and len(text) > _LONGEST_ADDED:
            raise _too_much(source, f"an added token of {len(text):,} characters", f"{_LONGEST_ADDED:,} at most")


def _too_much(source: object, found: str, bound: str) -> ModelLoadError:
    return ModelLoadError(
        f"{source} could not be loaded: it holds {found} ({bound}). A real tokenizer does not; take the model from its "
        "authors"
    )
