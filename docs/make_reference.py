"""Write docs/configuration.md, docs/command_line.md and docs/models.md from the code itself.

`make docs-reference` runs it. A test fails if the files differ from what it would write. `docs/reference` holds a
module for each page.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # a script's own folder is in the path, but not the one above it
    sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.reference.command_line import command_line
from docs.reference.configuration import configuration
from docs.reference.models import models

PAGES = {"configuration.md": configuration, "command_line.md": command_line, "models.md": models}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parent / name).write_text(page())
