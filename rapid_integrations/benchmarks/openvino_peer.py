"""The peer OpenVINO GenAI on the same GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from rapid_integrations.benchmarks.gguf_target import gguf_file
from rapid_integrations.benchmarks.peers import PeerSource, TimedTokens, TokenClock
from rapid_integrations.errors import ConfigurationError, MissingExtraError, UnsupportedModelError

_ALL_AT_ONCE = 1 << 16  # tokens of a batch: its pipeline for one prompt after another has no limit either


class OpenVINO:
    """An `openvino_genai.LLMPipeline` on CPU, with paged attention.

    It computes with the file's own quantised weights and, unless told otherwise, an 8-bit KV cache, so its output may
    differ from the other methods'. With a scheduler of its own choice it caches prefixes, so it is always told.
    """

    lacks: ClassVar[Mapping[str, str]] = {"restart": "OpenVINO GenAI keeps prefixes in memory only"}

    def __init__(self, file: Path, threads: int, kv_cache: str | None, prefix_caching: bool) -> None:
        self.import_package()
        import openvino
        import openvino_genai

        self._genai: Any = openvino_genai
        self._ov: Any = openvino
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = prefix_caching
        scheduler.max_num_batched_tokens = _ALL_AT_ONCE
        properties: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "scheduler_config": scheduler}
        if kv_cache is not None:
            properties["KV_CACHE_PRECISION"] = kv_cache
        try:
            self._pipeline = openvino_genai.LLMPipeline(str(file), "CPU", **properties)
        except (RuntimeError, IndexError) as error:  # the latter if a tensor is missing
            reason = str(error).strip().splitlines()[-1][:200]
            raise UnsupportedModelError(f"OpenVINO GenAI cannot load {file.name}: {reason}") from error
        core = openvino.Core()
        self.settings: dict[str, str | float] = {
            "version": str(openvino_genai.__version__),
            "weights": file.name,
            "kv_cache": kv_cache or _name(core.get_property("CPU", "KV_CACHE_PRECISION")),
            "dtype": _name(core.get_property("CPU", "INFERENCE_PRECISION_HINT")),
            "threads": threads,
            "prefix_caching": str(prefix_caching),
        }

    @staticmethod
    def import_package() -> None:
        """See `PeerClass.import_package`."""
        try:
            import openvino  # noqa: F401
            import openvino_genai  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(feature="The peer 'openvino'", extra="openvino") from error

    @classmethod
    def open(cls, source: PeerSource) -> Self:
        """Load the target's GGUF file.

        Raises:
            ConfigurationError: the target is not a GGUF file, or does not run on CPU.
            MissingExtraError: OpenVINO GenAI is not installed.
            UnsupportedModelError: it cannot load the file, or has no such KV-cache precision.
        """
        if source.device.type != "cpu":
            raise ConfigurationError(f"it runs on CPU here, and the other methods on {source.device}")
        return cls(gguf_file(source.target), source.threads, source.kv_cache, source.prefix_caching)

    def generate(self, prompt_ids: Sequence[int], new_tokens: int, eos: Sequence[int]) -> TimedTokens:
        """See `Peer.generate`."""
        import numpy as np

        ids = np.asarray([list(prompt_ids)], dtype=np.int64)
        inputs = self._genai.TokenizedInputs(self._ov.Tensor(ids), self._ov.Tensor(np.ones_like(ids)))
        config = self._genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.do_sample = False
        config.stop_token_ids = set(eos)
        if eos:
            config.eos_token_id = next(iter(eos))
        clock = TokenClock()
        token_ids: list[int] = []

        def note(new: list[int]) -> Any:
            clock.came(len(new))
            token_ids.extend(new)
            return self._genai.StreamingStatus.RUNNING

        self._pipeline.generate(inputs, config, _streamer(self._genai, note))
        return clock.timed(token_ids)


def _streamer(genai: Any, note: Any) -> Any:
    class Streamer(genai.StreamerBase):  # type: ignore[misc]  # comes without types
        def write(self, tokens: int | list[int]) -> Any:
            return note([tokens] if isinstance(tokens, int) else list(tokens))

        def end(self) -> None:
            """Do nothing, because nothing is buffered."""

    return Streamer()


def _name(precision: Any) -> str:
    """Return OpenVINO's own name of a precision: "u8", "bf16", "f32"."""
    return str(precision.get_type_name()) if hasattr(precision, "get_type_name") else str(precision)
