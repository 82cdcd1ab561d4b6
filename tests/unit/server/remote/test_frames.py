"""The bodies of a drafter's messages."""

import numpy as np
import pytest

from rapid_integrations import RemoteError
from rapid_integrations.server.remote.frames import pack, unpack
from tests.toys.errors import coded


def test_every_bit_arrives():
    arrays = {
        "ids": np.array([0, 7, 2**31 - 1]),
        "logits": np.array([[1.5, -np.inf, np.nextafter(np.float32(1), 2)], [0.1, -0.0, 1e-42]], dtype=np.float32),
        "shares": np.array([0.1, np.nextafter(1.0, 0.0)]),
        "none": np.zeros((0, 20), dtype=np.float32),
    }
    head, found = unpack(pack({"calls": [{"text": "ü"}]}, arrays))
    assert head == {"calls": [{"text": "ü"}]} and list(found) == list(arrays)
    assert [each.dtype for each in found.values()] == [np.int32, np.float32, np.float64, np.float32]
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].astype(array.dtype).tobytes() == array.tobytes()


BODY = pack({}, {"a": np.arange(4)})


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\n",
        b"{}",
        b"{}\n",
        b"[]\n",
        b'{"arrays": {"a": ["i4", -1]}}\n',
        b'{"arrays": {"a": ["i4", 2.5]}}\n',
        b'{"arrays": {"a": ["O", 1]}}\n12345678',
        b'{"arrays": {"a": ["i4", 99999999999, 99999999999]}}\n',
        b'{"arrays": []}\n',
        BODY[:-1],
        BODY + b"x",
    ],
    ids=repr,
)
def test_a_damaged_message_is_refused(damaged):
    with pytest.raises(RemoteError, match="not one of a RAPID drafter", check=coded("remote.answer")):
        unpack(damaged)
