"""The command `rapid train-head` trains a head that drafts for a target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import errors_taught, stderr
from rapid_integrations.cli.options import DOCUMENTS_HELP, Device, DocumentOptions, Dtype
from rapid_integrations.config import DEFAULT_TARGET

if TYPE_CHECKING:
    from rapid_integrations.proposers.heads.training.trainer import TrainingState


def train_head(
    *,
    target: Annotated[str, typer.Option("--target", "-t", help="Model that the head is made for.")] = DEFAULT_TARGET,
    texts: Annotated[list[str], typer.Option("--texts", help=DOCUMENTS_HELP + " May be given several times.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the head. An interrupted training goes on from there.")
    ],
    dtype: Dtype = "auto",
    device: Device = "auto",
    passages: Annotated[int, typer.Option(min=2, help="Passages of the texts; the target answers each.")] = 256,
    prompt_tokens: Annotated[int, typer.Option(min=16, help="Tokens of a passage at most.")] = 256,
    answer_tokens: Annotated[int, typer.Option(min=4, help="Tokens of an answer at most.")] = 128,
    draft_vocab_size: Annotated[int, typer.Option(min=16, help="Tokens that the head can guess.")] = 8192,
    epochs: Annotated[int, typer.Option(min=1, help="How often each answer is read.")] = 8,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 0,
    reading: DocumentOptions,
) -> None:
    """Train an EAGLE-3 head on what its target writes about texts. --draft-head takes the folder."""
    with errors_taught():
        from rapid_integrations.models import loader
        from rapid_integrations.proposers.heads.training import trainer

        settings = trainer.TrainingSettings(
            passages=passages,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            draft_vocab_size=draft_vocab_size,
            epochs=epochs,
            seed=seed,
        )
        documents = [document.text for document in reading.read(texts)]
        with ProgressView(stderr) as progress:
            model = loader.load(target, dtype=dtype, device=device, on_progress=progress)
            try:
                trainer.train_head(model, documents, output, settings, on_progress=progress, on_epoch=_shown)
            finally:
                model.lm.close()
        sys.stdout.write(f"{output}\n")


def _shown(state: TrainingState) -> None:
    """Write a line for an epoch."""
    accepted = ", ".join(f"{each:.0%}" for each in state.acceptances[-1])
    stderr.print(
        f"epoch {state.epoch} of {state.settings['epochs']}: loss {state.losses[-1]:.3f}; accepted of held-out answers "
        f"(first, second, ... token, if those before it were): {accepted}"
    )
