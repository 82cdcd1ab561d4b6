"""The cookbooks run from their first cell to their last, with the real models."""

import subprocess
import sys

import pytest

from tests.toys.repository import ROOT


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(path.name for path in (ROOT / "cookbooks").glob("*.ipynb")))
def test_a_cookbook_runs(notebook):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=900"]
    run = subprocess.run(
        [*command, "-c", "/dev/null", str(ROOT / "cookbooks" / notebook)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
