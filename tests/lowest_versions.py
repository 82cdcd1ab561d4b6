"""Make an environment with the lowest version of everything that pyproject.toml allows; `make test-lowest` tests in it.

Run with the folder of the environment. Only Python itself is needed.
"""

import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BOUND = re.compile(r"^([\w.-]+)(?:\[[^\]]*\])?>=([\w.]+)")


def lowest(pyproject: dict) -> dict[str, str]:
    """Return the lowest version that is allowed of each package, by the package's name."""
    project = pyproject["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    found: dict[str, str] = {}
    for requirement in wanted:
        if bound := _BOUND.match(requirement):
            name, version = bound.groups()
            if found.setdefault(name, version) != version:
                raise SystemExit(f"{name} has two lowest versions: {found[name]} and {version}")
    return found


def main(folder: Path) -> None:
    """Make the environment."""
    constraints = folder / "lowest.txt"
    venv.create(folder, with_pip=True)
    bounds = lowest(tomllib.loads((ROOT / "pyproject.toml").read_text()))
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in bounds.items()))
    command = [folder / "bin" / "python", "-m", "pip", "install", "-c", constraints, "-e", f"{ROOT}[dev]"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
