"""transformers' `generate` as it comes, with a draft model, and with prompt lookup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rapid_integrations.benchmarks.peers import PeerSource, TimedTokens, TokenClock
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models import loader
from rapid_integrations.progress import ignore_progress

LOOKUP_TOKENS = 10  # prompt_lookup_num_tokens in transformers' documentation
_TRIAL_TOKENS = 32


class Plain:
    """`generate` with its default cache and attention, in the dtype that decodes faster here."""

    lacks: ClassVar[Mapping[str, str]] = {
        "ahead": "transformers' generate keeps nothing of a prompt",
        "restart": "transformers' generate keeps nothing of a prompt",
    }

    def __init__(self, model: Any, dtype: torch.dtype, **options: Any) -> None:
        self._model = model
        self._options = options
        self.settings: dict[str, str | float] = {"dtype": str(dtype).removeprefix("torch.")}

    @staticmethod
    def import_package() -> None:
        """Do nothing: this module has imported transformers."""

    @classmethod
    def open(cls, source: PeerSource) -> Self:
        """Load the target, unless another of these peers has loaded it."""
        return cls(*_faster(source))

    def generate(self, prompt_ids: Sequence[int], new_tokens: int, eos: Sequence[int]) -> TimedTokens:
        """See `Peer.generate`."""
        ids = torch.tensor([list(prompt_ids)], device=self._model.device)
        streamer = _Streamer(self._model.device)
        output = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
            eos_token_id=list(eos) or None,
            pad_token_id=next(iter(eos), 0),
            streamer=streamer,
            **self._options,
        )
        return streamer.clock.timed(output[0, len(prompt_ids) :].tolist())


class PromptLookup(Plain):
    """`generate(prompt_lookup_num_tokens=...)`: drafts are copied from the prompt."""

    @classmethod
    def open(cls, source: PeerSource) -> Self:
        """See `Plain.open`."""
        peer = cls(*_faster(source), prompt_lookup_num_tokens=LOOKUP_TOKENS)
        peer.settings["prompt_lookup_num_tokens"] = LOOKUP_TOKENS
        return peer


class Assisted(Plain):
    """`generate(assistant_model=...)`: a draft model reads the whole prompt, too.

    Raises:
        ConfigurationError: there is no model besides the target.
    """

    @classmethod
    def open(cls, source: PeerSource) -> Self:
        """Load the target and the drafter."""
        if source.drafter is None:
            raise ConfigurationError(
                "the target drafts for itself: as its own assistant it would read everything twice per token. Name a "
                "smaller model with --drafter"
            )
        model, dtype = _faster(source)
        return cls(model, dtype, assistant_model=source.load(source.drafter, dtype))


class _Streamer:
    """A transformers streamer that records the times of tokens."""

    def __init__(self, device: torch.device) -> None:
        self.clock = TokenClock(device)
        self._prompt_seen = False

    def put(self, value: Tensor) -> None:
        if self._prompt_seen:
            self.clock.came(value.numel())
        self._prompt_seen = True  # transformers passes the prompt first

    def end(self) -> None:
        """Do nothing, because nothing is buffered."""


def _faster(source: PeerSource) -> tuple[Any, torch.dtype]:
    """Return the target in the dtype that decodes faster here. It is measured once for each source."""
    if source.fastest is None:
        # An accelerator's choice is known, and two copies of a large model may not fit.
        dtypes = (torch.float32, torch.bfloat16) if source.device.type == "cpu" else (torch.bfloat16,)
        best_tps = -1.0
        for dtype in dtypes:
            model = source.load(source.target, dtype)
            tps = 0.0
            if len(dtypes) > 1:
                tps = Plain(model, dtype).generate(source.warm_up_ids, _TRIAL_TOKENS, ()).decode_tps or 0.0
            if tps > best_tps:
                best_tps, source.fastest = tps, (model, dtype)
        assert source.fastest is not None
    return source.fastest


def loaded_as_it_comes(device: torch.device) -> Callable[[str, torch.dtype], Any]:
    """Return a `PeerSource.load` that loads a fresh model by its name, unchanged by this package."""

    def load(name: str, dtype: torch.dtype) -> Any:
        lm: Any = loader.load(name, dtype=dtype, device=device, on_progress=ignore_progress).lm
        return lm.transformers_copy(dtype)

    return load
