"""The file of hashed keys."""

import stat

import pytest

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.server.keys import KeyFile, add_key, remove_key


def test_only_hashes_are_kept_and_only_for_the_owner(tmp_path):
    file = tmp_path / "keys"
    keys = {name: add_key(file, name) for name in ("ann", "bob")}
    assert KeyFile(file).names == ["ann", "bob"] and len(set(keys.values())) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for name, key in keys.items():
        assert key.removeprefix("rapid-") not in file.read_text() and len(key) > 40
        assert KeyFile(file).owner(key) == name
    assert KeyFile(file).owner("") is None and KeyFile(file).owner("rapid-") is None


def test_a_removed_key_is_refused_and_the_others_stay(tmp_path):
    file = tmp_path / "keys"
    ann, bob = add_key(file, "ann"), add_key(file, "bob")
    seen = KeyFile(file)
    remove_key(file, "ann")
    assert seen.owner(ann) is None and seen.owner(bob) == "bob"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_comments_and_blank_lines_are_left_alone(tmp_path):
    file = tmp_path / "keys"
    key = add_key(file, "ann")
    file.write_text("# of the team\n\n" + file.read_text())
    assert KeyFile(file).owner(key) == "ann"


@pytest.mark.parametrize("line", ["ann", "ann 12", "ann " + "g" * 64, "a/b " + "0" * 64])
def test_a_malformed_line_is_refused_without_being_quoted(tmp_path, line):
    (tmp_path / "keys").write_text(line)
    with pytest.raises(ConfigurationError, match="line 1 of the file of API keys") as caught:
        KeyFile(tmp_path / "keys")
    assert line not in str(caught.value)  # somebody may have put the key itself there


@pytest.mark.parametrize("name", ["", "a b", "a\n", "ü", "a" * 65])
def test_names_are_plain(tmp_path, name):
    with pytest.raises(ConfigurationError, match="the name"):
        add_key(tmp_path / "keys", name)


def test_errors_name_the_way_out(tmp_path):
    with pytest.raises(ConfigurationError, match="rapid keys add"):
        KeyFile(tmp_path / "none")
    add_key(tmp_path / "keys", "ann")
    with pytest.raises(ConfigurationError, match="already"):
        add_key(tmp_path / "keys", "ann")
    with pytest.raises(ConfigurationError, match="rapid keys list"):
        remove_key(tmp_path / "keys", "bob")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        add_key(tmp_path / "no folder" / "keys", "ann")


def test_a_file_that_an_editor_has_saved_without_its_last_line_break(tmp_path):
    file = tmp_path / "keys"
    ann = add_key(file, "ann")
    file.write_text("# of the team\n  " + file.read_text().rstrip("\n"))
    bob = add_key(file, "bob")
    seen = KeyFile(file)
    assert seen.owner(ann) == "ann" and seen.owner(bob) == "bob"
    remove_key(file, "ann")  # its line begins with spaces
    assert seen.owner(ann) is None and seen.owner(bob) == "bob" and "# of the team" in file.read_text()
