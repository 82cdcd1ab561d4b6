"""A library is asked what it is before anything is passed to it: a wrong struct would be heap corruption."""

import ctypes
import ctypes.util

import pytest

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import interface
from rapid_integrations.kernels.cpu.interface import Rows, opened
from rapid_integrations.kernels.cpu.scratch import Scratch

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


def structure(name, fields):
    return type(name, (ctypes.Structure,), {"_fields_": tuple(fields)})


def swapped(fields, a, b):
    names = [name for name, _ in fields]
    i, j = names.index(a), names.index(b)
    fields = list(fields)
    fields[i], fields[j] = fields[j], fields[i]
    return fields


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (Rows._fields_[:-1], "Rows.settled"),  # forgotten in Python
        ((*Rows._fields_, ("more", ctypes.c_int64)), "Rows"),  # forgotten in C++
        (swapped(Rows._fields_, "cos", "ids"), "Rows.cos"),
        ([(name, ctypes.c_int32 if name == "past" else kind) for name, kind in Rows._fields_], "Rows.past"),
        ([("tokens" if name == "rows" else name, kind) for name, kind in Rows._fields_], "Rows.rows"),
    ],
    ids=["forgotten here", "forgotten there", "swapped", "narrower", "renamed"],
)
def test_a_struct_that_differs_is_an_error(monkeypatch, fields, named):
    others = [struct for struct in interface.STRUCTS if struct is not Rows]
    monkeypatch.setattr(interface, "STRUCTS", (*others, structure("Rows", fields)))
    with pytest.raises(OSError, match=f"has other structs than Python: see {named} in interface.h and interface.py"):
        opened(native.native_library()._name)


def test_every_struct_of_the_header_is_compared():
    header = (interface.FOLDER / "interface.h").read_text()
    declared = {line.split()[1] for line in header.splitlines() if line.startswith("struct ")}
    assert declared == {struct.__name__ for struct in interface.STRUCTS}


def test_other_sources_are_an_error(monkeypatch):
    monkeypatch.setattr(interface, "sources_key", lambda: "0123456789abcdef")
    with pytest.raises(OSError, match="was built from other sources"):
        opened(native.native_library()._name)


def test_a_library_of_something_else_is_an_error():
    with pytest.raises(OSError, match="is of another version"):
        opened(ctypes.util.find_library("m"))


def test_scratch_space_is_kept_for_the_next_step():
    scratch = Scratch()
    first = scratch.take(1000)
    address = first.data_ptr()
    scratch.give_back(first)
    again = scratch.take(900)
    assert again.data_ptr() == address
    assert scratch.take(900).data_ptr() != address  # it is lent already


def test_scratch_space_grows_and_what_is_huge_is_not_kept():
    scratch = Scratch()
    scratch.give_back(scratch.take(100))
    assert scratch.take(200).numel() >= 200
    scratch.give_back(scratch.take(2**23 + 1))
    assert scratch._idle == []


def test_of_several_steps_at_once_one_space_is_kept():
    scratch = Scratch()
    for space in [scratch.take(100) for _ in range(64)]:
        scratch.give_back(space)
    assert len(scratch._idle) == 1


def test_scratch_space_that_does_not_exist():
    with pytest.raises(MemoryError, match="a decode step found no memory"):
        Scratch().take(2**55)
