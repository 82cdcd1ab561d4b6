"""The program of the child process that reads the files of a model; see `isolated`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.chat_rendering import check_template, render_template
from rapid_integrations.models.config_bounds import check_numbers
from rapid_integrations.models.gguf.converted import check_tokens
from rapid_integrations.models.gguf.description import architecture_of, configuration_of
from rapid_integrations.models.gguf.kinds import refuse_gguf, refuse_unread
from rapid_integrations.models.gguf.parts import parts_of, read_parts
from rapid_integrations.models.gguf.tokenizer import tokenizer_of
from rapid_integrations.models.isolated import RESULT
from rapid_integrations.models.load_errors import errors_explained
from rapid_integrations.models.loader import check_folder
from rapid_integrations.models.safetensors_files import read_weights
from rapid_integrations.models.tokenizer_bounds import check_tokenizer
from rapid_integrations.models.vocabulary import Vocabulary

_GROWTH = 4 << 30  # bytes that may be mapped once the libraries are loaded
_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs, didn't it?\n\n\tTab  and   spaces.",
    "Übergröße — “quotes” … 東京は晴れ。Привет! 🙂 \u200b end",
    "a" * 5000 + " " * 5000 + "ab" * 2500 + "\n" * 500,
)


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(OSError, ValueError):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _GROWTH,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(path: Path) -> None:
    """Read the files of a model and use them, without computing logits."""
    _bound_memory()
    if path.is_file():
        tokenizer = _tokenizer_of_gguf(path)
    else:
        check_folder(path)
        read_weights(path)
        check_numbers(str(path), AutoConfig.from_pretrained(path, local_files_only=True).to_dict())
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    check_tokenizer(str(path), tokenizer)
    check_template(str(path), tokenizer.chat_template)
    vocabulary = Vocabulary(tokenizer, ())
    for probe in _PROBES:
        vocabulary.decode(vocabulary.encode(probe))
    if tokenizer.chat_template:
        with contextlib.suppress(Exception):  # a template may refuse the messages; it only has to terminate
            render_template(tokenizer, [{"role": "user", "content": _PROBES[0]}])


def _tokenizer_of_gguf(path: Path) -> Any:
    """Check the configuration of a GGUF file, and return its tokenizer."""
    parts = parts_of(path)
    headers = read_parts(parts)
    refuse_gguf(headers[0])
    architecture = architecture_of(headers[0])
    if architecture is None or architecture.by_transformers or (config := configuration_of(headers)) is None:
        refuse_unread(headers[0])
        where: dict[str, Any] = {"gguf_file": parts[0].name, "local_files_only": True}
        check_numbers(str(path), AutoConfig.from_pretrained(path.parent, **where).to_dict())
    else:
        check_numbers(str(path), config)
    check_tokens(path, headers[0])
    return tokenizer_of(headers[0])


def main() -> None:
    """Read the model that the command line names, and write one line of JSON: its error, or an empty result."""
    path = Path(sys.argv[1])
    result: dict[str, Any] = {"error": None}
    try:
        with errors_explained(path, path):
            _read(path)
    except ModelLoadError as error:
        result = {"error": str(error), "unsupported": isinstance(error, UnsupportedModelError)}
    except MemoryError:
        result = {"error": f"{path} could not be loaded: its tokenizer or configuration uses up all memory"}
    except Exception as error:
        result = {"error": f"{path} could not be loaded: {error}"}
    sys.stdout.write(f"\n{RESULT}{json.dumps(result)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
