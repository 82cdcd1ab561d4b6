"""Reading the files of a model in a process of its own first, so that what kills it kills that process.

The libraries that read tokenizers are compiled: out of memory, or of stack, they end the process, and nothing in it can
be told from that. Weights are not read there: their files are checked without any library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, Literal

from rapid_integrations.errors import ConfigurationError, ModelLoadError, UnsupportedModelError

ISOLATED: Final[Literal["isolated"]] = "isolated"
SWITCH = "RAPID_VERIFY"
SECONDS = 120.0
_GROWTH = 4 << 30  # bytes beyond what is mapped when the libraries are loaded
_RESULT = "RAPID-ISOLATED "
_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs, didn't it?\n\n\tTab  and   spaces.",
    "Übergröße — “quotes” … 東京は晴れ。Привет! 🙂 \u200b end",
    "a" * 5000 + " " * 5000 + "ab" * 2500 + "\n" * 500,
)


def asked_for(verify: str | None) -> bool:
    """Whether an argument, or else the environment, asks for the check.

    Raises:
        ConfigurationError: RAPID_VERIFY is something else.
    """
    if verify is not None:
        return verify == ISOLATED
    value = os.environ.get(SWITCH, "")
    if value not in ("", "0", ISOLATED):
        raise ConfigurationError(f"{SWITCH}={value!r}: use 'isolated', or leave it out")
    return value == ISOLATED


def check_in_a_child(path: Path | None, name: str | Path, seconds: float = SECONDS) -> None:
    """Read configuration, tokenizer and chat template of a folder or GGUF file in a child process, and use them once.

    Args:
        path: the folder or file; None (a name on a hub) is refused.
        name: for messages.
        seconds: until the child is stopped.

    Raises:
        ModelLoadError: they are refused, kill the child, or do not come to an end.
        ConfigurationError: the name is one on a hub.
    """
    if path is None:
        raise ConfigurationError(
            f"verify='isolated' reads files that are here; {name} is a name on a hub. Download the model into a folder "
            "first (hf download), and give that folder"
        )
    command = [sys.executable, "-P", "-m", "rapid_integrations.models.isolated", str(path)]
    environment = os.environ | {SWITCH: "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise ModelLoadError(
            f"{name} was read in a process of its own, which did not come to an end within {seconds:.0f} seconds: its "
            "tokenizer or chat template keeps it busy. Do not load it; take the model from its authors"
        ) from None
    except OSError as error:
        raise ModelLoadError(f"no process to read {name} in could be started: {error}") from error
    result = _result(done.stdout)
    if result is None:
        raise ModelLoadError(
            f"{name} was read in a process of its own, which {_ended(done.returncode)}: its files kill what reads "
            "them. Do not load it; take the model from its authors"
        )
    if result.get("error") is not None:
        kind = UnsupportedModelError if result.get("unsupported") else ModelLoadError
        raise kind(str(result["error"]))


def _result(output: str) -> dict[str, Any] | None:
    for line in reversed(output.splitlines()):
        if line.startswith(_RESULT):
            found: dict[str, Any] = json.loads(line.removeprefix(_RESULT))
            return found
    return None


def _ended(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"died of {signal.Signals(-status).name}"
    return f"ended with status {status}"


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
    """Do everything with the files of a model but compute with it."""
    from transformers import AutoConfig, AutoTokenizer

    from rapid_integrations.models.chat_rendering import check_template, render_template
    from rapid_integrations.models.config_bounds import check_numbers
    from rapid_integrations.models.gguf_kinds import refuse_gguf
    from rapid_integrations.models.gguf_parts import parts_of, read_parts
    from rapid_integrations.models.loader import check_folder
    from rapid_integrations.models.safetensors_files import read_weights
    from rapid_integrations.models.tokenizer_bounds import check_tokenizer
    from rapid_integrations.models.vocabulary import Vocabulary

    _bound_memory()
    where: dict[str, Any] = {"local_files_only": True}
    folder = path
    if path.is_file():
        parts = parts_of(path)
        refuse_gguf(read_parts(parts)[0])
        folder, where["gguf_file"] = path.parent, parts[0].name
    else:
        check_folder(path)
        read_weights(path)
    config = AutoConfig.from_pretrained(folder, **where)
    check_numbers(str(path), config.to_dict())
    tokenizer = AutoTokenizer.from_pretrained(folder, **where)
    check_tokenizer(str(path), tokenizer)
    check_template(str(path), tokenizer.chat_template)
    vocabulary = Vocabulary(tokenizer, ())
    for probe in _PROBES:
        vocabulary.decode(vocabulary.encode(probe))
    if tokenizer.chat_template:
        with contextlib.suppress(Exception):  # a template may refuse; it only has to come to an end
            render_template(tokenizer, [{"role": "user", "content": _PROBES[0]}])


def main() -> None:
    """Read the model that the command line names, and write one line of JSON: what is wrong with it, or nothing."""
    from rapid_integrations.models.loader import errors_explained

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
    sys.stdout.write(f"\n{_RESULT}{json.dumps(result)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
