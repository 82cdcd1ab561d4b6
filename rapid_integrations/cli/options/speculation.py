"""The law of an answer, and what proposes its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rapid_integrations.cli.options.panels import SPECULATION
from rapid_integrations.config import SpeculationConfig, TailRule


def _number_or_word(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value  # the settings check the word


@dataclass(frozen=True)
class SpeculationOptions:
    """Select the law of the answer and the proposer."""

    law: Annotated[
        Literal["auto", "target", "augmented", "paper", "lenient"],
        typer.Option(
            help="Distribution that the answer follows: target (lossless), augmented (p_hat), paper, or lenient "
            "(lossy). auto is augmented, and target if the drafter is smaller than the target.",
            rich_help_panel=SPECULATION,
        ),
    ] = "auto"
    eta: Annotated[
        Any,
        typer.Option(
            parser=_number_or_word,
            metavar="NUMBER|auto|nearest",
            help="Weight of the drafter in p_hat: a number, auto or nearest. Default: auto; 10 or 40 for --law paper.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    tail_rule: Annotated[
        TailRule,
        typer.Option(
            "--tail-rule",
            help="How unlikely tokens are treated in p_hat: mask, or restore (Eq. 9 of the paper).",
            rich_help_panel=SPECULATION,
        ),
    ] = "mask"
    proposer: Annotated[
        str,
        typer.Option(
            help="Source of the draft tokens: drafter, draft_lm, draft_head, draft_head_tree, prompt_lookup, "
            "retrieval_tree, datastore, hybrid, tree_hybrid, adaptive, skipped_layers, magicdec, triforce, none, or "
            "auto: tree_hybrid on processors, hybrid elsewhere, and drafter for the law paper.",
            rich_help_panel=SPECULATION,
        ),
    ] = "auto"
    datastore: Annotated[
        Path | None,
        typer.Option(
            help="Index of your own texts to copy from (rapid datastore build), for the proposers datastore, "
            "retrieval_tree and tree_hybrid.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    datastore_grows: Annotated[
        bool,
        typer.Option(
            "--datastore-grows", help="Add answers to the datastore, for later questions.", rich_help_panel=SPECULATION
        ),
    ] = False
    draft_length: Annotated[
        str, typer.Option(help="Draft tokens per round: auto or a number.", rich_help_panel=SPECULATION)
    ] = "auto"
    drafter_weights: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Weights of --drafter and of each of --more-drafters, as in 2,1. Default: all the same.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    draft_skip_layers: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Layers that the proposer skipped_layers leaves out, as in 3,5,7. Default: chosen during the request.",
            rich_help_panel=SPECULATION,
        ),
    ] = None
    chunk_cache: Annotated[
        Literal["off", "target", "view"],
        typer.Option(
            "--chunk-cache",
            help="target: the drafter takes the target's rows of the retrieved chunks. view: it reads them in place, "
            "without a copy. The first token comes sooner, and q differs a little.",
            rich_help_panel=SPECULATION,
        ),
    ] = "off"

    def config(self) -> SpeculationConfig:
        """Return the settings, checked."""
        # The settings refuse every word but "auto".
        length: Any = int(self.draft_length) if self.draft_length.isdecimal() else self.draft_length
        skipped: Any = None if self.draft_skip_layers is None else self.draft_skip_layers.split(",")
        weights: Any = None if self.drafter_weights is None else self.drafter_weights.split(",")
        return SpeculationConfig(
            law=self.law,
            eta=self.eta,
            tail_rule=self.tail_rule,
            proposer=self.proposer,
            datastore=None if self.datastore is None else str(self.datastore),
            datastore_grows=self.datastore_grows,
            draft_length=length,
            drafter_weights=weights,
            draft_skip_layers=skipped,
            chunk_cache=self.chunk_cache,
        )
