"""Ask this engine within a process of `rapid bench question`. Importing this module imports the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rapid_integrations.benchmarks.first_token import answer
from rapid_integrations.benchmarks.waits import Wait
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.prompt import Prompt

_WARM_UP = Prompt.from_context("\n".join(f"Line {i} says {i * i}." for i in range(120)), "Which line says 100?")


class OwnProcess:
    """This engine as configured, or its target alone.

    Args:
        engine: a loaded engine.
        told: see `cli.question_child`.
    """

    def __init__(self, engine: RapidEngine, told: dict[str, Any]) -> None:
        self._engine = engine
        self._told = told
        self._speculation = SpeculationConfig.model_validate_json(told["speculation"])
        self.settings: dict[str, str | float] = {"dtype": str(getattr(engine.target, "dtype", "unknown"))[6:]}

    @classmethod
    @contextmanager
    def opened(cls, told: dict[str, Any]) -> Iterator[OwnProcess]:
        """Load the models. At the end what is cached is written to `told["files"]`, if it names a folder."""
        with RapidEngine.from_pretrained(prefix_cache_dir=told["files"], **told["engine"]) as engine:
            yield cls(engine, told)

    def warm_up(self) -> None:
        """Answer a question about another text, which loads the embedder, too."""
        self._engine.generate(_WARM_UP, sampling=SamplingParams(max_new_tokens=2), speculation=self._speculation)
        self._engine.clear_prefix_cache()

    def read(self) -> None:
        """Read the document ahead."""
        self._engine.read(self._told["document"])

    def ask(self, number: int) -> Wait:
        """Answer the first question (0) or the second (1)."""
        prompt = Prompt.from_context(self._told["document"], self._told["questions"][number])
        timed, _ = answer(self._engine, prompt, self._speculation, self._told["new_tokens"])
        return Wait(
            timed.first_token_s,
            {
                "retrieval": timed.retrieval_s,
                "prefill": timed.target_s,
                "drafter": timed.drafter_s,
                "first_round": timed.first_round_s,
            },
            timed.first_token_cpu_s,
            timed.total_s,
            timed.tokens,
            timed.prompt_tokens,
            timed.cached_tokens,
        )

    def keep(self) -> None:
        """Do nothing: the engine writes when it is closed."""

    def restore(self) -> None:
        """Do nothing: the engine finds its files by itself."""
