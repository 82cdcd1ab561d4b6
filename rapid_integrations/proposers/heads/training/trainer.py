"""Trains an EAGLE-3 head for a target: it writes, reads and learns, and goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.cache.hidden_states import LAST, WantedStates
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.proposers.heads.eagle import default_levels
from rapid_integrations.proposers.heads.training.corpus import Example, Passages, load, prompts_of, save, written
from rapid_integrations.proposers.heads.training.learning import Batch, acceptance, loss_of
from rapid_integrations.proposers.heads.training.network import HeadNetwork, HeadShape

STATE = "training.json"
MODEL = "model.safetensors"
_WORK = "training"  # the folder of what a finished head does not need
T = TypeVar("T")
_TOGETHER = 16  # answers that are written in one pass


@dataclass(frozen=True)
class TrainingSettings:
    """How a head is trained.

    Attributes:
        passages: passages of the texts, each with an answer.
        prompt_tokens, answer_tokens: of each at most.
        draft_vocab_size: tokens that the head can guess: the most frequent ones of texts and answers.
        epochs: how often each example is read.
        batch: examples of a step.
        steps: guesses in a row that it learns.
        learning_rate: at its peak.
        held_out: share of the examples that acceptance is measured on.
        seed: of everything that is random.
    """

    passages: int = 256
    prompt_tokens: int = 256
    answer_tokens: int = 128
    draft_vocab_size: int = 8192
    epochs: int = 8
    batch: int = 2
    steps: int = 3
    learning_rate: float = 1e-3
    held_out: float = 0.06
    seed: int = 0


@dataclass
class TrainingState:
    """What a training has done so far; it lies in `training.json`.

    Attributes:
        target: the target's name.
        settings: of the training. They cannot be changed later.
        written: examples that have been written.
        epoch: epochs that are done.
        losses: mean loss of each epoch.
        acceptances: of each epoch, of each step; see `acceptance`.
        texts: a digest of the texts; "" in a folder of an earlier version.
    """

    target: str
    settings: dict[str, Any]
    written: int = 0
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    acceptances: list[list[float]] = field(default_factory=list)
    texts: str = ""

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        whole = folder / f"{STATE}.part"
        whole.write_text(json.dumps(asdict(self), indent=1))
        whole.replace(folder / STATE)


def train_head(
    target: LoadedModel,
    texts: Sequence[str],
    folder: Path,
    settings: TrainingSettings | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
    on_epoch: Callable[[TrainingState], None] = lambda state: None,
) -> TrainingState:
    """Train a head, and write it to `folder`, which `draft_head=` takes.

    A folder of an interrupted training goes on from its last whole epoch, with the same result as without the
    interruption.

    Args:
        target: the model that the head is made for.
        texts: what its answers are about.
        folder: for the head, and for what an interrupted training needs.
        settings: how; None takes the defaults.
        on_progress: told of examples and steps.
        on_epoch: told of each epoch's loss and acceptance.

    Raises:
        ConfigurationError: the target gives no states, there is too little text, or the folder is of another training
            or is damaged.
    """
    settings = settings or TrainingSettings()
    lm = target.lm
    if not isinstance(lm, GivesStates):
        raise ConfigurationError(f"{lm.name} gives no hidden states: a head is trained for a model of this process")
    levels = default_levels(lm.num_layers)
    levels = levels if min(levels) >= 0 else (0, lm.num_layers // 2, lm.num_layers - 1)
    state = _opened(folder, lm.name, settings, _digest(texts))
    if state.epoch >= settings.epochs and (folder / MODEL).exists():
        return state
    work = folder / _WORK
    work.mkdir(exist_ok=True)
    _write_examples(target, texts, work, settings, levels, state, folder, on_progress)
    shards = sorted(work.glob("examples-*.safetensors"))
    examples = [each for shard in shards for each in _read_of(folder, shard, load)]
    if len(examples) != state.written:
        raise ConfigurationError(
            f"{folder} holds {len(examples)} of {state.written} examples, so a part of {work} is gone: remove the "
            "folder, or name another one"
        )
    held = max(1, round(settings.held_out * len(examples)))
    if len(examples) <= held:
        raise ConfigurationError(
            f"{len(texts)} texts gave {len(examples)} examples; at least two are needed: give longer texts"
        )
    vocab_size = min(lm.vocab_size, target.vocabulary.highest_token_id + 1)
    tokens = _most_frequent(examples, settings.draft_vocab_size, vocab_size)
    learning = _Learning(lm, examples[held:], examples[:held], tokens, vocab_size, levels, settings)
    learning.resume(folder, work, state)
    if state.epoch and not (folder / MODEL).exists():
        learning.export(folder)
    while state.epoch < settings.epochs:
        state.losses.append(learning.epoch(state.epoch, on_progress))
        state.acceptances.append(learning.measured())
        state.epoch += 1
        learning.save(work)
        learning.export(folder)
        state.save(folder)
        on_epoch(state)
    return state


def _digest(texts: Sequence[str]) -> str:
    """Return what tells texts from others."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _read_of(folder: Path, path: Path, read: Callable[[Path], T]) -> T:
    """Read a file of an interrupted training."""
    from safetensors import SafetensorError

    try:
        return read(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ConfigurationError(
            f"{path} is damaged or gone ({error}), so the training in {folder} cannot go on: remove the folder, or "
            "name another one"
        ) from error


def _opened(folder: Path, target: str, settings: TrainingSettings, texts: str) -> TrainingState:
    fresh = TrainingState(target, asdict(settings), texts=texts)
    if (folder / STATE).exists():
        try:
            found = TrainingState(**json.loads((folder / STATE).read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{folder / STATE} is damaged ({error}): name another folder, or remove this one"
            ) from error
        if (found.target, found.settings) != (fresh.target, fresh.settings):
            raise ConfigurationError(
                f"{folder} holds a training of {found.target!r} with other settings: name another folder, or give the "
                f"settings that it began with: {found.settings}"
            )
        if found.texts and found.texts != texts:
            raise ConfigurationError(
                f"{folder} holds a training on other texts: name another folder, or give the texts that it began with"
            )
        return found
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty, and holds no training: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    fresh.save(folder)
    return fresh


def _write_examples(
    target: LoadedModel,
    texts: Sequence[str],
    work: Path,
    settings: TrainingSettings,
    levels: tuple[int, ...],
    state: TrainingState,
    folder: Path,
    on_progress: OnProgress,
) -> None:
    passages = Passages(settings.prompt_tokens, settings.answer_tokens, settings.passages, settings.seed)
    prompts = prompts_of(texts, target, passages)
    while state.written < len(prompts):
        first = state.written
        on_progress("write examples", first, len(prompts))
        examples = list(written(target, prompts[first : first + _TOGETHER], passages, levels, first))
        save(examples, work / f"examples-{first:06d}.safetensors")
        state.written += len(examples)
        state.save(folder)
    on_progress("write examples", len(prompts), len(prompts))


def _most_frequent(examples: Sequence[Example], count: int, vocab_size: int) -> Tensor:
    """Return the tokens that texts and answers have most often, ascending; at most all."""
    seen = torch.zeros(vocab_size, dtype=torch.float64)
    for each in examples:
        seen += torch.bincount(each.token_ids, minlength=vocab_size)[:vocab_size]
        seen += 0.01 * torch.bincount(each.likely[:, :4].flatten().long(), minlength=vocab_size)[:vocab_size]
    seen -= 1e-9 * torch.arange(vocab_size)  # of equals the first: tokenizers number them by how frequent they are
    return seen.topk(min(count, vocab_size)).indices.sort().values


class _Learning:
    """The head and its optimiser."""

    def __init__(
        self,
        lm: Any,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        tokens: Tensor,
        vocab_size: int,
        levels: tuple[int, ...],
        settings: TrainingSettings,
    ) -> None:
        self._lm, self._examples, self._settings, self._tokens = lm, examples, settings, tokens
        width = lm.hidden_size
        dim = 64 if width % 64 == 0 else width // max(1, width // 64)
        heads = width // dim
        groups = next(each for each in (4, 3, 2, 1) if heads % each == 0)
        self._shape = HeadShape(
            hidden_size=width,
            intermediate_size=-(-width * 8 // 3 // 32) * 32,
            num_attention_heads=heads,
            num_key_value_heads=heads // groups,
            head_dim=dim,
            levels=levels,
            vocab_size=vocab_size,
            draft_vocab_size=len(tokens),
        )
        # What the target's head makes of unit vectors are its weights.
        head = lm.logits_of(torch.eye(width, device=lm.device))[:, tokens.to(lm.device)].T.cpu()
        last = _last_states(lm, examples[0].token_ids)
        scales = examples[0].states.float().square().mean(dim=0).sqrt().clamp(min=1e-6)
        self._network = HeadNetwork(self._shape, settings.seed, head, last.square().mean(dim=0).sqrt(), scales)
        self._own = torch.full((vocab_size,), -1, dtype=torch.int64)
        self._own[tokens] = torch.arange(len(tokens))
        self._held_out = [self._batch([each]) for each in held_out]
        self._steps = -(-len(examples) // settings.batch)
        parameters = list(self._network.parameters())
        self._optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._done = 0

    def _batch(self, examples: Sequence[Example]) -> Batch:
        return Batch.of(examples, self._lm, self._own, self._settings.steps)

    def epoch(self, number: int, on_progress: OnProgress) -> float:
        """Read every example once, and return the mean loss."""
        order = torch.randperm(
            len(self._examples), generator=torch.Generator().manual_seed(1000 * self._settings.seed + number)
        ).tolist()
        total, whole = 0.0, self._steps * self._settings.epochs
        for step in range(self._steps):
            places = order[step * self._settings.batch : (step + 1) * self._settings.batch]
            batch = self._batch([self._examples[each] for each in places])
            for group in self._optimizer.param_groups:
                group["lr"] = self._settings.learning_rate * _schedule(self._done, whole)
            with torch.autocast("cpu", torch.bfloat16, enabled=_fast_bfloat16(self._lm)):
                loss = loss_of(self._network, batch, self._settings.steps)
            self._optimizer.zero_grad()
            torch.autograd.backward([loss])
            torch.nn.utils.clip_grad_norm_(self._network.parameters(), 0.5)
            self._optimizer.step()
            self._done += 1
            total += float(loss.detach())
            on_progress("train the head", self._done, whole)
        return total / self._steps

    def measured(self) -> list[float]:
        """Return the acceptance on what was held out."""
        return acceptance(self._network, self._held_out, self._settings.steps)

    def save(self, work: Path) -> None:
        """Write everything that the next epoch needs."""
        from safetensors.torch import save_file

        tensors = dict(self._network.named())
        for index, parameter in enumerate(self._network.parameters()):
            moments = self._optimizer.state[parameter]
            tensors |= {f"optimizer.{index}.{name}": moments[name] for name in ("exp_avg", "exp_avg_sq", "step")}
        whole = work / "checkpoint.part"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, whole)
        whole.replace(work / f"checkpoint-{self._done:06d}.safetensors")
        for old in sorted(work.glob("checkpoint-*.safetensors"))[:-2]:  # the state may not be written yet
            old.unlink()

    def resume(self, folder: Path, work: Path, state: TrainingState) -> None:
        """Take over the weights and moments of the last whole epoch, if there is one."""
        if not state.epoch:
            return
        self._done = state.epoch * self._steps
        _read_of(folder, work / f"checkpoint-{self._done:06d}.safetensors", self._take_over)

    def _take_over(self, path: Path) -> None:
        from safetensors.torch import load_file

        tensors = load_file(path)
        self._network.load(tensors)
        for index, parameter in enumerate(self._network.parameters()):
            self._optimizer.state[parameter] = {
                name: tensors[f"optimizer.{index}.{name}"] for name in ("exp_avg", "exp_avg_sq", "step")
            }

    def export(self, folder: Path) -> None:
        """Write the head in the published layout of EAGLE-3."""
        from safetensors.torch import save_file

        shape = self._shape
        tensors = {name: tensor.bfloat16().contiguous() for name, tensor in self._network.named().items()}
        tensors["d2t"] = self._tokens - torch.arange(len(self._tokens))
        known = torch.zeros(shape.vocab_size, dtype=torch.bool)
        known[self._tokens] = True
        tensors["t2d"] = known
        config = {
            "architectures": ["LlamaForCausalLMEagle3"],
            "model_type": "llama",
            "num_hidden_layers": 1,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "dtype": "bfloat16",
            "eagle_aux_hidden_state_layer_ids": list(shape.levels),
            **{key: value for key, value in asdict(shape).items() if key != "levels"},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        whole = folder / "model.part"
        save_file(tensors, whole)
        whole.replace(folder / MODEL)


def _last_states(lm: Any, token_ids: Tensor) -> Tensor:
    """Return what the target's head reads for a text, (T, E) float32."""
    taken: list[Tensor] = []
    states = WantedStates((LAST,), 0, lambda at, ids, tree, given: taken.append(given.float().cpu()))
    rows = Rows(token_ids.to(lm.device), lm.new_cache(len(token_ids)), 0, of_prompt=True, states=states)
    lm.forward([rows])
    return taken[0].clone()


def _schedule(step: int, whole: int) -> float:
    """Return the share of the learning rate: it rises over a twentieth of the steps, and falls to a tenth."""
    warm = max(1, whole // 20)
    return (step + 1) / warm if step < warm else 1 - 0.9 * (step - warm) / max(1, whole - warm)


def _fast_bfloat16(lm: Any) -> bool:
    """Whether the target computes in bfloat16: then the processor is good at it."""
    dtype: torch.dtype = lm.dtype
    return dtype == torch.bfloat16
