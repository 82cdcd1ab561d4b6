"""Where a suite's tests are taken from: the source distribution of the installed version, or a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import version
from pathlib import Path

from tests.hosts.suites import Suite

# What a run needs of a project: its tests, and how pytest is to be set up for them. Not the package itself: the
# installed one is what we work with.
TAKEN = ("tests", "pyproject.toml")


class SuiteNotFoundError(Exception):
    """There are no tests to run; the message says where they are to be had."""


def laid_out(suite: Suite, checkout: Path | None, folder: Path) -> Path:
    """Return a folder that holds the suite's `tests` and no package.

    Args:
        suite: whose tests.
        checkout: a checkout of its repository, or of the part of it that holds the tests; None takes the source
            distribution of the installed version from the package index.
        folder: where copies are kept between runs.

    Raises:
        SuiteNotFoundError: neither holds tests.
    """
    if checkout is not None:
        return _from_checkout(suite, checkout, folder / f"{suite.distribution}-checkout")
    if not suite.in_sdist:
        raise SuiteNotFoundError(
            f"{suite.distribution}'s source distribution holds no tests. Check them out and name the folder:\n"
            f"  {clone_command(suite)}"
        )
    return _from_sdist(suite, folder / f"{suite.distribution}-{version(suite.distribution)}")


def clone_command(suite: Suite) -> str:
    """Return how a person gets the tests of the installed version."""
    tag = suite.tag.format(version=version(suite.distribution))
    return f"git clone --depth 1 --branch '{tag}' {suite.repository}"


def version_of(root: Path) -> str:
    """Return the version that the tests in `root` belong to."""
    with (root / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def _from_checkout(suite: Suite, checkout: Path, root: Path) -> Path:
    parts = [part for part in (checkout / suite.checkout_folder, checkout) if (part / suite.paths[0]).is_dir()]
    if not parts:
        raise SuiteNotFoundError(
            f"{checkout} holds neither {suite.checkout_folder}/{suite.paths[0]} nor {suite.paths[0]}: name a checkout "
            f"of {suite.repository}, as of\n  {clone_command(suite)}"
        )
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(parts[0] / "tests", root / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(parts[0] / "pyproject.toml", root)
    return root


def _from_sdist(suite: Suite, root: Path) -> Path:
    wanted = f"{suite.distribution}=={version(suite.distribution)}"
    if not (root / "pyproject.toml").exists():
        downloads = root.with_name(root.name + "-download")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads]
            + ["--no-binary", suite.distribution, wanted],
            check=True,
        )  # pip compares the file with the index's SHA-256
        (archive,) = downloads.glob("*.tar.gz")
        _unpack(archive, root)
        shutil.rmtree(downloads)
    if not (root / suite.paths[0]).is_dir():
        raise SuiteNotFoundError(f"the source distribution {wanted} holds no {suite.paths[0]}: {clone_command(suite)}")
    if version_of(root) != version(suite.distribution):
        raise SuiteNotFoundError(f"{root} holds the tests of {version_of(root)}, not of {wanted}: delete it")
    return root


def _unpack(archive: Path, root: Path) -> None:
    """Take `TAKEN` out of a source distribution; pyproject.toml last, so that it stands for a complete copy."""
    shutil.rmtree(root, ignore_errors=True)
    with tarfile.open(archive) as tar:
        for wanted in TAKEN:
            for member in tar.getmembers():
                parts = Path(member.name).parts[1:]  # without the folder name-version
                if parts and parts[0] == wanted:
                    tar.extract(member.replace(name=str(Path(*parts))), root, filter="data")
