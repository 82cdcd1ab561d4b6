"""Before a model is used: short passes of this engine, compared with the model's own eager attention.

An architecture that computes something else is refused then, and does not give wrong answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.out_of_memory import is_out_of_memory
from rapid_integrations.errors import ModelLoadError, NotANumberError, RapidError, UnsupportedModelError
from rapid_integrations.models import attention
from rapid_integrations.models.config_bounds import has_experts
from rapid_integrations.models.families import FAMILIES
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.host_cache import HeldLayer
from rapid_integrations.models.host_forward import HostForward

CHECK_TOKENS = 24
_STEPS = (7919, 104729, 1299709)  # between the ids of a text's tokens
CHECK_SHARED = 17  # tokens of the check that a second cache takes over from the first: a segment of 16, and one more
_CHECK_PARENTS = (-1, -1, 0, 0, 3, 2)  # a tree; a chain in it is the check's last tokens
_CHECK_CHAIN = (0, 3, 4)
_CHECK_DEPTHS = (0, 2, 0, 1, 2, 1)  # of the tokens that lie there, in the check's last ones; others are out of place
CHECK_WINDOW = 7  # sliding windows are set to this during the comparison, so that CHECK_TOKENS exceed them
CHECK_CHOSEN = 7  # the same of the keys that an indexer chooses


class _DiffersError(UnsupportedModelError):
    """The logits differ by more than is allowed."""


class Compared(Protocol):
    """What of a `CausalLM` is compared."""

    name: str
    vocab_size: int
    device: torch.device
    dtype: torch.dtype

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        ...

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts."""
        ...


class EagerCheck:
    """Compares what a model computes here with what it computes by itself.

    Args:
        lm: what computes here.
        model: the transformers model.
        host: its own forward pass on our cache.
        at_rest: the attention setting that is left behind.

    Attributes:
        kv_bytes_per_token: bytes of one token's keys and values, of the newest comparison.
        state_bytes: bytes of the recurrent states behind one position.
        reads_trees: several continuations read at once were right, too.
        windows: keys that a query sees in each layer, by its number, or of its chunk; None: all.
    """

    def __init__(self, lm: Compared, model: Any, host: HostForward, at_rest: str) -> None:
        self._lm, self._model, self._host, self._at_rest = lm, model, host, at_rest
        self._expected = torch.empty(0)
        self._expected_step = 0
        self._decoder = False
        self._step = _STEPS[0]
        self._row_bytes: list[int] = []  # of one token, by number of the keys and values in the cache
        self.kv_bytes_per_token = 0
        self.state_bytes = 0
        self.reads_trees = False
        self.windows: dict[int, int | None] = {}

    def of_host(self) -> None:
        """Compare passes of this engine with the model's own, once as it is and once with narrow sliding windows.

        The windows are narrowed so that the check's few tokens exceed them.

        Raises:
            UnsupportedModelError: they differ.
        """
        with attention.windows_observed() as windows:
            self._expected = self._compare_texts(self._eager_logits)
        self._expected_step, self.windows = self._step, windows
        if any(window is not None for window in windows.values()):
            with self._narrow_windows(), attention.windows_observed() as narrow:
                self._compare_texts(self._eager_logits)
            wide = {layer for layer, window in narrow.items() if window not in (None, CHECK_WINDOW)}
            if wide:
                raise UnsupportedModelError(
                    f"{self._lm.name}: {len(wide)} of its layers have sliding windows that its configuration does not "
                    "set, so that they cannot be compared with the model's own"
                )

    def runs_host(self) -> bool:
        """Whether the model's own forward can run on our attention: not if it computes attention in code of its own."""
        self._model.set_attn_implementation(attention.ATTENTION_NAME)
        replaced: bool = self._model.config._attn_implementation == attention.ATTENTION_NAME
        self._model.set_attn_implementation(self._at_rest)
        return replaced

    def of_model(self) -> None:
        """Only compute what the decoder is compared with: the model's own forward does not run on our cache."""
        self._expected, self._expected_step = self._eager_logits(), self._step

    def of_decoder(self, fused: FusedDecoder, *, quantised: bool) -> None:
        """Compare passes of the decoder that has taken over the model's matrices, which `lm` computes with now.

        Raises:
            UnsupportedModelError: they differ.
        """
        self._decoder = True
        self._step = self._expected_step

        def lent() -> Tensor:
            with fused.lend(self._model):  # what is lost by quantisation is no fault of ours
                return self._eager_logits()

        def expected() -> Tensor:
            return self._expected if self._step == self._expected_step and not quantised else lent()

        self._expected = self._compare_texts(expected)
        if fused.indexers:
            self._compare_with_few_chosen(fused, lent)

    def _compare_with_few_chosen(self, fused: FusedDecoder, eager: Callable[[], Tensor]) -> None:
        """Compare what rows choose, and what they then have if they choose the same.

        Where rounding makes a row choose another key it has something else, and the rows behind it, too. So does a
        choice among keys with equal scores: the model's own depends on how many rows it reads at once.
        """
        step = self._step
        with self._few_chosen(fused) as seen:
            for self._step in _STEPS:
                expected = eager()
                same = self._compare_choices(fused, seen)
                if self._lm.dtype != torch.float32:
                    break
                if same:
                    self._compare(expected)
                    break
        self._step = step

    @contextmanager
    def _few_chosen(self, fused: FusedDecoder) -> Iterator[list[tuple[Tensor, ...]]]:
        """Let indexers choose few keys within the block. Yield what those of the model have read and chosen.

        That is for each of them (T, E), (T, ...) compressed queries and (T, CHECK_CHOSEN) keys, of its newest pass.
        """
        modules = [each for each in self._model.modules() if hasattr(each, "index_topk")]
        before, seen = [each.index_topk for each in modules], [tuple[Tensor, ...]() for _ in modules]
        with ExitStack() as ended:
            for number, (module, own) in enumerate(zip(modules, fused.indexers, strict=True)):

                def noted(_: Any, given: Any, chosen: Tensor, number: int = number) -> None:
                    seen[number] = given[0][0], given[1][0], chosen[0]

                ended.callback(module.register_forward_hook(noted).remove)
                ended.callback(setattr, module, "index_topk", before[number])
                ended.callback(setattr, own, "taken", own.taken)
                module.index_topk = own.taken = CHECK_CHOSEN
            yield seen

    @torch.inference_mode()
    def _compare_choices(self, fused: FusedDecoder, seen: Sequence[tuple[Tensor, ...]]) -> bool:
        """Compare which keys the model's indexers have chosen with those that ours choose of the same rows.

        What counts are the scores of the keys: of two that are nearly equal, rounding may choose either. What theirs
        have less in all than ours, relative to what ours have more than any keys have on average.

        Returns:
            whether all choices are the same.
        """
        same = True
        tolerance = 1e-3 if self._lm.dtype == torch.float32 else 0.1
        for number, (normed, compressed, chosen) in enumerate(seen):
            scores = fused.index_scores(number, normed, compressed)
            less = more = 0.0
            for row in range(CHECK_CHOSEN, len(scores)):
                own = scores[row, : row + 1]
                best = own.topk(CHECK_CHOSEN)
                same &= set(best.indices.tolist()) == set(chosen[row].tolist())
                less += (best.values.sum() - own[chosen[row].long()].sum()).item()
                more += (best.values.sum() - CHECK_CHOSEN * own.mean()).item()
            if not less <= tolerance * more:
                raise _DiffersError(
                    f"{self._lm.name}: its indexer number {number + 1} chooses other keys than this engine's (the "
                    f"scores differ by {less / more if more else less:.2%}, allowed {tolerance:.1%}); this "
                    "architecture is not supported"
                )
        return same

    def _compare_texts(self, expected_of: Callable[[], Tensor]) -> Tensor:
        """Compare a text, and in low precision others if a model with experts fails it; return the expected logits.

        Rounding may send one token to another expert, and what it then is reaches all later tokens. A wrong mask, scale
        or order shows in every text, and this in hardly any two.
        """
        rounded = self._lm.dtype != torch.float32 and has_experts(self._model.config)
        others = [each for each in _STEPS if each != self._step] if rounded else []
        one_by_one = self._host.one_by_one
        while True:
            expected = expected_of()
            try:
                self._compare(expected)
                return expected
            except _DiffersError:
                if not others:
                    raise
                self._step, self._host.one_by_one = others.pop(0), one_by_one

    def windows_of(self, held: Sequence[HeldLayer]) -> tuple[tuple[int | None, ...], tuple[int, int]]:
        """Return the windows through which a cache's keys and values are seen, and what `windowed` of a model says."""
        if any(each.slot is not None and layer not in self.windows for layer, each in enumerate(held)):
            return (), (0, 0)  # its layers do not say who they are
        windows = tuple(self.windows.get(layer) for layer, each in enumerate(held) if each.slot is not None)
        nbytes = sum(size for size, window in zip(self._row_bytes, windows, strict=True) if window is not None)
        return windows, (max((each or 0 for each in windows), default=0), nbytes)

    @contextmanager
    def _narrow_windows(self) -> Iterator[None]:
        config = self._model.config.get_text_config(decoder=True)
        names = [name for name in ("sliding_window", "attention_chunk_size") if getattr(config, name, None) is not None]
        own = {name: getattr(config, name) for name in names}
        try:
            for name in names:
                setattr(config, name, CHECK_WINDOW)
            yield
        finally:
            for name, value in own.items():
                setattr(config, name, value)

    @torch.inference_mode()
    def _eager_logits(self) -> Tensor:
        """Return the logits (CHECK_TOKENS, V) of a short text, by the model's own eager attention."""
        self._model.set_attn_implementation("eager")
        try:
            logits: Tensor = self._model(input_ids=self._check_ids()[None], use_cache=False).logits[0].float()
            return logits
        finally:
            self._model.set_attn_implementation(self._at_rest)

    def _check_ids(self) -> Tensor:
        """Return tokens spread over the vocabulary.

        Consecutive first ids would be control tokens. No model expects several of those in a row, so rounding errors
        would explode.
        """
        return self._step * torch.arange(1, CHECK_TOKENS + 1, device=self._lm.device) % self._lm.vocab_size

    @torch.inference_mode()
    def _compare(self, expected: Tensor) -> None:
        """Compare a short pass of this engine (a chunk, a few tokens, single ones) with the model's own logits."""
        parts = torch.split(self._check_ids(), [CHECK_TOKENS - 5, 3, 1, 1])
        self._model.set_attn_implementation(attention.ATTENTION_NAME)
        try:
            if not self._decoder and self._model.config._attn_implementation != attention.ATTENTION_NAME:
                known = type(self._model).__name__ in FAMILIES
                raise UnsupportedModelError(
                    f"{self._lm.name}: its attention cannot be replaced: {type(self._model).__name__} computes it in "
                    "code of its own. "
                    + (
                        "Load it by its name or folder"
                        if known
                        else "Take a model that follows transformers' attention interface, as nearly all do"
                    )
                )
            cache = self._lm.new_cache(CHECK_TOKENS)
            logits = [self._lm.forward([Rows(part, cache, len(part))])[0] for part in parts]
            self.kv_bytes_per_token = cache.bytes_per_token
            states = () if cache.state is None else cache.state.states
            self.state_bytes = max((each.nbytes for each in states), default=0)
            if cache.filled_layers != cache.layers:
                without = cache.layers - cache.filled_layers
                raise UnsupportedModelError(
                    f"{self._lm.name}: {without} of its {cache.layers} layers keep no keys and values in the cache; "
                    "only models whose layers are all full or sliding-window attention can be run"
                )
            self._row_bytes = [sum(each[:, :, 0].nbytes for each in cache.layer(slot)) for slot in range(cache.layers)]
            if not self._decoder:
                logits += self._behind_shared(cache)
                expected = torch.cat([expected, expected[CHECK_SHARED:]])
            computed = torch.cat(logits)
            expected_in_tree = expected[CHECK_TOKENS - len(_CHECK_CHAIN) : CHECK_TOKENS]
            in_tree = None if cache.state is not None else self._in_tree(cache)
        except NotANumberError as found:
            raise ModelLoadError(str(found)) from None
        finally:
            self._model.set_attn_implementation(self._at_rest)
        # Low precision rounds differently in each kernel; a wrong mask, scale or head order is far beyond this.
        tolerance = 1e-3 if self._lm.dtype == torch.float32 else 0.1
        error = (computed - expected).norm() / expected.norm()
        self.reads_trees = in_tree is not None and bool(
            (in_tree - expected_in_tree).norm() / expected_in_tree.norm() <= tolerance
        )
        if self._lm.dtype != torch.float32 and has_experts(self._model.config):
            # Rounding may send a token to another expert. So single tokens may differ, but not half of them.
            error = ((computed - expected).norm(dim=1) / expected.norm(dim=1)).median()
        if not error <= tolerance and not self._decoder and self._host.with_state and not self._host.one_by_one:
            self._host.one_by_one = True
            return self._compare(expected[:CHECK_TOKENS])
        if not error <= tolerance:
            raise _DiffersError(
                f"{self._lm.name}: this engine's attention differs from the model's own by {error:.2%} (allowed "
                f"{tolerance:.1%}); this architecture is not supported"
            )

    def _in_tree(self, cache: KVCache) -> Tensor:
        """Read the check's last tokens again, with other tokens between them that they do not follow."""
        cache.rollback(CHECK_TOKENS - len(_CHECK_CHAIN))
        tokens = self._check_ids()[[cache.length + depth for depth in _CHECK_DEPTHS]]
        (logits,) = self._lm.forward([Rows(tokens, cache, len(tokens), parents=_CHECK_PARENTS)])
        return logits[list(_CHECK_CHAIN)]

    def _behind_shared(self, cache: KVCache) -> list[Tensor]:
        """Read the check's last tokens behind rows that another cache holds; return their logits."""
        # So short a segment serves transformers' own forward, but no kernel.
        forked = cache.fork(CHECK_SHARED, CHECK_TOKENS, tile=CHECK_SHARED // 4)
        parts = torch.split(self._check_ids()[CHECK_SHARED:], [CHECK_TOKENS - CHECK_SHARED - 1, 1])
        return [self._lm.forward([Rows(part, forked, len(part))])[0] for part in parts]


@contextmanager
def refused_with_the_reason(name: str, model: Any) -> Iterator[None]:
    """Turn any error of the model's own code on this cache and attention into `UnsupportedModelError`."""
    try:
        yield
    except UnsupportedModelError as error:  # attention and masks do not know the model's name
        if str(error).startswith(name):
            raise
        raise UnsupportedModelError(f"{name}: {error}") from error
    except RapidError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedModelError(
            f"{name} cannot be run: {type(model).__name__}'s own code fails on this engine's cache and "
            f"attention ({type(error).__name__}: {reason}); this architecture is not supported"
        ) from error
