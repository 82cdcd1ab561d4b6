"""The settings of Speculative RAG. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rapid_integrations.config import Settings


class SpeculativeRAGConfig(Settings):
    """Settings of Speculative RAG. The defaults of `drafts` and `passages` are the paper's (section 4.2)."""

    drafts: int = Field(default=5, ge=1, le=32, description="maximum number of drafts (the paper's m)")
    passages: int = Field(default=2, ge=1, le=64, description="passages in each draft's subset (the paper's k)")
    rationale: Literal["passages", "written"] = Field(
        default="passages",
        description='what the target judges a draft by: its "passages", or a rationale that is "written" before the '
        "draft, as in the paper, whose drafter was trained for it",
    )
    rationale_tokens: int = Field(default=64, ge=8, le=1024, description="maximum length of a written rationale")
