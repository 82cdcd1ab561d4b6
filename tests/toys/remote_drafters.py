"""Engines with a drafter on another machine, beside those with the same drafter here."""

import torch

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.server.remote.best_rows import cut
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine, light_model
from tests.toys.models import words

SMALL = CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2)
NEW = 20
PROMPT = Prompt.from_context(words(1, 120), "which words?")
SETTINGS = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SamplingParams(max_new_tokens=NEW)}
TARGET, DRAFTER = 2, 5  # seeds


class CutLM:
    """A model whose every distribution is cut to its best tokens: a local drafter as a remote one is."""

    def __init__(self, lm, best):
        self._lm, self._best = lm, best

    def __getattr__(self, name):
        return getattr(self._lm, name)

    def forward(self, rows):
        return [torch.stack([cut(row, self._best) for row in z]) if len(z) else z for z in self._lm.forward(rows)]


def model(seed=DRAFTER):
    return light_model(seed)


def drafting_here(best=0, **settings):
    """Return an engine whose drafter runs here; 0 keeps whole distributions."""
    drafter = model()
    if best:
        drafter = LoadedModel(CutLM(drafter.lm, best), drafter.vocabulary)
    return RapidEngine(model(TARGET), drafter, **{**SETTINGS, **settings})


def drafting_there(drafter, **settings):
    """Return an engine with a `RemoteDrafter`."""
    return RapidEngine(model(TARGET), drafter, **{**SETTINGS, **settings})


def server_engine(**settings):
    """Return the engine of a RAPID server, whose target drafts for others."""
    return light_engine(DRAFTER, **settings)
