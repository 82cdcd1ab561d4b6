"""Names of proposers: ours, registered ones, and those of installed packages."""

import pytest

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.proposers import ENTRY_POINTS, PROPOSERS, proposer_class, register_proposer


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installed package that provides two proposers, one of which is broken."""
    (tmp_path / "their_proposers.py").write_text("class Mine:\n    pass\n")
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\nmine = their_proposers:Mine\ngone = their_proposers:Gone\nnone = their_proposers:Mine\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_every_name_of_ours_is_a_class():
    for name in PROPOSERS:
        assert hasattr(proposer_class(name), "from_request"), name


def test_a_package_provides_a_proposer(installed):
    assert proposer_class("mine").__name__ == "Mine"
    assert proposer_class("none").__name__ == "NoProposer"  # nobody else takes our names
    with pytest.raises(ConfigurationError, match="install the package that provides it again"):
        proposer_class("gone")


def test_an_unknown_name_is_answered_with_all_known_ones(installed):
    with pytest.raises(ConfigurationError, match=r"auto, drafter.*none, gone, mine"):
        proposer_class("unknown")


def test_a_registered_one(monkeypatch):
    monkeypatch.setitem(PROPOSERS, "theirs", "placeholder")
    register_proposer("theirs", "rapid_integrations.decoding.proposal:NoProposer")
    assert proposer_class("theirs").__name__ == "NoProposer"
