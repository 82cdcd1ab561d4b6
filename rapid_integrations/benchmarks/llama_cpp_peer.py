"""The peer llama.cpp on the same GGUF file: its own server, within the process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

from rapid_integrations.benchmarks.gguf_target import gguf_file
from rapid_integrations.benchmarks.peers import PeerSource, TimedTokens, TokenClock
from rapid_integrations.errors import ConfigurationError, MissingExtraError, UnsupportedModelError

_KEPT: Final = "slot.bin"
_SECONDS: Final = 600


class LlamaCpp:
    """llama.cpp's server with one slot, flash attention and its KV cache in float16.

    The package xllamacpp brings it along. Its published wheels for Linux are built for AVX2, so a build for the machine
    at hand (`GGML_NATIVE=ON`) can be faster; `settings["built_for"]` says what the one at hand uses.
    """

    lacks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, file: Path, threads: int, context_tokens: int, slots: Path | None, prefix_caching: bool) -> None:
        self.import_package()
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path, settings.port = str(file), 0
        settings.n_parallel, settings.n_ctx, settings.fit_params = 1, context_tokens, False
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        settings.warmup = False  # it is part of the first answer, as in the other engines
        settings.cache_ram_mib = 0  # one slot is enough for one document; else a second cache is searched
        settings.verbosity = 0
        if slots is not None:
            settings.endpoint_slots, settings.slot_save_path = True, f"{slots}/"
        try:
            self._server: Any = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise UnsupportedModelError(f"llama.cpp cannot load {file.name}: {error}") from error
        self._prefix_caching = prefix_caching
        self.settings: dict[str, str | float] = {
            "version": str(xllamacpp.__version__),
            "weights": file.name,
            "kv_cache": "f16",
            "flash_attention": "on",
            "threads": threads,
            "prefix_caching": str(prefix_caching),
            "built_for": " ".join(xllamacpp.get_system_info().split()),
        }

    @staticmethod
    def import_package() -> None:
        """See `PeerClass.import_package`."""
        try:
            import xllamacpp  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(feature="The peer 'llama_cpp'", extra="llama-cpp") from error

    @classmethod
    def open(cls, source: PeerSource) -> Self:
        """Load the target's GGUF file.

        Raises:
            ConfigurationError: the target is not a GGUF file, or does not run on CPU.
            MissingExtraError: xllamacpp is not installed.
            UnsupportedModelError: it cannot load the file.
        """
        if source.device.type != "cpu":
            raise ConfigurationError(f"it runs on CPU here, and the other methods on {source.device}")
        file = gguf_file(source.target)
        return cls(file, source.threads, source.context_tokens, source.files, source.prefix_caching)

    def generate(self, prompt_ids: Sequence[int], new_tokens: int, eos: Sequence[int]) -> TimedTokens:
        """See `Peer.generate`."""
        asked = {
            "prompt": list(prompt_ids),
            "n_predict": new_tokens,
            "temperature": 0.0,
            "cache_prompt": self._prefix_caching,
            "stream": True,
            "id_slot": 0,
            "logprobs": 1,  # names the tokens' ids
        }
        clock = TokenClock()
        token_ids: list[int] = []
        timings: dict[str, Any] = {}
        refused: list[str] = []  # an error that is raised in the callback would pass through the server's own code

        def note(said: str | dict[str, Any]) -> bool:
            piece = json.loads(said) if isinstance(said, str) else said
            if "error" in piece:
                refused.append(str(piece["error"].get("message", piece)))
                return True
            if new := _ids(piece):
                clock.came(len(new))
                token_ids.extend(new)
            timings.update(piece.get("timings") or {})
            return bool(set(new) & set(eos))  # True ends the answer

        self._server.handle_completions(json.dumps(asked), note)
        if refused:
            raise ConfigurationError(f"llama.cpp refused the prompt: {refused[0]}")
        timed = clock.timed(token_ids)
        if timings:
            prefill_s = min(timings["prompt_ms"] / 1000, timed.first_token_s)
            return replace(timed, prefill_s=prefill_s, cached_tokens=int(timings["cache_n"]))
        return timed

    def keep(self, folder: Path) -> None:
        """See `KeepingPeer.keep`."""
        self._slot("save")

    def restore(self, folder: Path) -> None:
        """See `KeepingPeer.restore`."""
        self._slot("restore")

    def _slot(self, action: str) -> None:
        address = f"{self._server.listening_address}/slots/0?action={action}"
        body = json.dumps({"filename": _KEPT}).encode()
        try:
            urlopen(Request(address, body, {"Content-Type": "application/json"}), timeout=_SECONDS).close()
        except URLError as error:
            raise ConfigurationError(f"llama.cpp's slot was not written or read ({action}): {error}") from error


def _ids(piece: Mapping[str, Any]) -> list[int]:
    """Return the tokens of a streamed piece."""
    choices = piece.get("choices") or [{}]
    content = (choices[0].get("logprobs") or {}).get("content") or []
    return [int(token["id"]) for token in content]
