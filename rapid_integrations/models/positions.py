"""The context window of a model, in tokens."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from rapid_integrations.models.config_bounds import context_window
from rapid_integrations.models.other_parts import reads_no_text

UNBOUNDED = 2**20
"""Tokens: the window of a model none of whose layers sees the whole text, if nobody says another."""
_TABLE = re.compile(r"(wpe|pos|position|positions)_?(emb|embed|embedding|embeddings|encoder)?", re.IGNORECASE)


def positions_of(model: Any) -> int | None:
    """Return the context window of a transformers model in tokens, or None if neither configuration nor tables have it.

    Learned positions are a table. The window ends with its last row, whatever the configuration says.
    """
    told = context_window(model.config)
    tables = [
        module.num_embeddings - int(getattr(module, "offset", 0) or 0)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and _is_table(name) and not reads_no_text(name)
    ]
    known = [each for each in (told, *tables) if each is not None and each > 0]
    return min(known, default=None)


def _is_table(name: str) -> bool:
    last = name.rpartition(".")[2]
    return bool(_TABLE.fullmatch(last)) or last in ("embed_positions", "position_embeddings", "positions_embed")
