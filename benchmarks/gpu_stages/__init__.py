"""The stages of `gpu_check.py`, and the shape that they measure. Only the worker imports their modules.

A stage is given a function that writes down what is known, as it becomes known. In a dry run the stages compute tiny
shapes on the processor: their figures mean nothing, but that they run is known before a GPU is paid for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SWITCH = "RAPID_GPU_CHECK"
DRY = os.environ.get(SWITCH) == "dry"
DEVICE = "cpu" if DRY else "cuda:0"

SHAPE = "tiny" if DRY else "llama-3.1-8b"
LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = (2, 4, 2, 64, 512) if DRY else (32, 32, 8, 128, 128_256)
HIDDEN, INNER = (256, 512) if DRY else (4096, 14_336)
CONTEXTS, RETRIEVAL = ((96, 160, 256), 64) if DRY else ((32_768, 65_536, 122_880), 4096)
ROWS = (1, 2, 5, 9, 16, 17)
ROUND = 9  # positions of a round whose laws are timed
PROMPT_ROWS = 32 if DRY else 2048  # of a product, as a piece of a prompt has them
PIECES = (
    ((32, 0), (64, 160))
    if DRY
    else (
        *((1024, past) for past in (0, 7168, 31_744, 121_856)),
        *((4096, past) for past in (28_672, 118_784)),
        (8192, 114_688),
    )
)
"""Tokens of a prompt's piece, and how many came before."""

MATRICES = {
    "qkv": ((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN),
    "out": (HIDDEN, HEADS * HEAD_DIM),
    "gate_up": (2 * INNER, HIDDEN),
    "down": (HIDDEN, INNER),
    "head": (VOCAB, HIDDEN),
    "smollm2": (1536, 576),
}
"""Rows and columns of a layer's weights, of the head's, and of a model whose rows no 128 divides."""

Say = Callable[..., None]


class Stage(NamedTuple):
    """How many seconds a stage may take, and in which module it is."""

    seconds: int
    module: str


STAGES = {  # in the order of their value
    "env": Stage(40, "machine"),
    "correctness": Stage(130, "correctness"),
    "attention": Stage(60, "attention"),
    "steps": Stage(120, "steps"),
    "prefill": Stage(70, "attention"),
    "prompt": Stage(45, "steps"),
    "linears": Stage(60, "steps"),
    "steps_int4": Stage(60, "steps"),
    "law": Stage(25, "rounds"),
    "memory": Stage(40, "machine"),
    "rounds": Stage(50, "rounds"),
    "modelled": Stage(10, "modelled"),
}
