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
RESULT = "RAPID-ISOLATED "
"""What the line of the child's output begins with that holds its result."""


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
    command = [sys.executable, "-P", "-m", "rapid_integrations.models.isolated_child", str(path)]
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
        if line.startswith(RESULT):
            found: dict[str, Any] = json.loads(line.removeprefix(RESULT))
            return found
    return None


def _ended(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"died of {signal.Signals(-status).name}"
    return f"ended with status {status}"
