"""An environment of their own for what the suites need beyond ours, so that ours stays as it is."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.hosts.suites import REQUIREMENTS


def python_for_suites(folder: Path) -> Path:
    """Return an interpreter that sees this environment's packages, and the suites' further ones before them.

    Args:
        folder: where it lies; made anew when the requirements or this environment are others.
    """
    ours = sysconfig.get_path("purelib")
    python = folder / "bin" / "python"
    made_for = {"packages": ours, "python": sys.version, "requirements": REQUIREMENTS}
    stamp = folder / "made-for.json"
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8")) == json.loads(json.dumps(made_for)):
        return python
    venv.create(folder, clear=True, with_pip=True)
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (Path(purelib) / "packages_of_rapid_integrations.pth").write_text(ours + "\n", encoding="utf-8")
    # pip sees our packages there and installs none of them again, unless a requirement wants another version.
    subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    stamp.write_text(json.dumps(made_for), encoding="utf-8")
    return python
