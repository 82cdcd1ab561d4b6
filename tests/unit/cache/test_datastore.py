"""The file of a datastore: what is written is found again, and what is wrong with it is said."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.cache.datastore import open_datastore, write_datastore
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.errors import ConfigurationError

TEXTS = [[1, 2, 3, 4], [1, 2, 5], []]
END = 9


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "index"
    assert write_datastore(path, TEXTS, END, "words") == 10
    return path


def test_it_finds_what_an_index_in_memory_finds(stored):
    index, other = open_datastore(stored, "words", 10), SuffixIndex.build([1, 2, 3, 4, END, 1, 2, 5, END, END])
    for tail in ([7, 1, 2], [2, 3], [END], [8]):
        match = index.longest(tail)
        assert match == other.longest(tail)
        if match is not None:
            assert index.behind(match, 9, 9) == other.behind(match, 9, 9)
    assert (3, 4, END) in [each[:3] for each in index.behind(index.longest([1, 2]), 9, 9)]
    assert index.size == other.size == 10 and index.buffers() == other.buffers()


def test_it_has_the_layout_of_safetensors(stored):
    from safetensors.numpy import load_file

    assert load_file(stored)["order"].shape == (9,)


def test_it_is_opened_once_and_again_when_it_changes(stored):
    index = open_datastore(stored, "words", 10)
    assert open_datastore(stored, "words", 10) is index
    write_datastore(stored, [[4, 5, 6]], END, "words")
    assert open_datastore(stored, "words", 10).size == 4


@pytest.mark.parametrize(("vocabulary", "size"), [("others", 10), ("words", 9)])
def test_tokens_of_another_vocabulary(stored, vocabulary, size):
    with pytest.raises(ConfigurationError, match="another vocabulary"):
        open_datastore(stored, vocabulary, size)


def test_nothing_to_index_and_no_file(tmp_path):
    with pytest.raises(ConfigurationError, match="files are empty"):
        write_datastore(tmp_path / "index", [[]], END, "words")
    with pytest.raises(ConfigurationError, match="rapid datastore build"):
        open_datastore(tmp_path / "index", "words", 10)
    assert not list(tmp_path.iterdir())


@given(data=st.data())
def test_any_damage_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "index"
    write_datastore(path, TEXTS, END, "words")
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    path.write_bytes(whole)
    with pytest.raises(ConfigurationError, match="damaged|another vocabulary"):
        open_datastore(path, "words", 10)


def test_a_file_that_was_made_to_do_harm_is_refused(stored):
    """Its digest is right, but a place lies outside of the text."""
    import hashlib

    whole = bytearray(stored.read_bytes())
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    first = 8 + length
    whole[first : first + 4] = struct.pack("<I", 10_000)
    wanted = header["__metadata__"]["digest"].encode()
    whole = whole.replace(wanted, b"0" * 64)
    whole = whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode())
    stored.write_bytes(whole)
    with pytest.raises(ConfigurationError, match="damaged"):
        open_datastore(stored, "words", 10)


@pytest.mark.parametrize("header", [b"[" * 60_000, b'{"__metadata__":' + b"[" * 60_000])
def test_a_header_that_is_nested_without_end(stored, header):
    stored.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ConfigurationError, match="damaged"):
        open_datastore(stored, "words", 10)


def test_a_folder_is_no_datastore(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        open_datastore(tmp_path, "words", 10)
