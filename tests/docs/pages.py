"""The pages that are tested: the README, its neighbours and docs/; the log apart, which says what was true then."""

from tests.toys.repository import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
LOG = [path for path in (DOCS / "LOG.md", *sorted((DOCS / "log").glob("*.md"))) if path.exists()]
PAGES = [
    README,
    *(path for path in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))] if path not in (README, *LOG)),
]
