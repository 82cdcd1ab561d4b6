"""Parts of a model that read pictures or sound and are not used for a text prompt."""

from __future__ import annotations

import re

_OTHER = re.compile(r"vision|visual|image|audio|video|speech|(?<!d)encoder|multi_?modal|(?:^|\.)mm_", re.IGNORECASE)


def reads_no_text(name: str) -> bool:
    """Return whether a module or weight belongs to such a part, by its name ("model.vision_tower.embeddings")."""
    return _OTHER.search(name) is not None
