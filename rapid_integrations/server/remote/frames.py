"""The body of a drafter's HTTP message: a line of JSON, and behind it the arrays that it names, as they lie in memory.

Token ids and logits are most of what is sent, and must arrive with every bit. As JSON they would be three times as
large.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

import numpy as np

from rapid_integrations.errors import RemoteError

MEDIA_TYPE: Final = "application/x-rapid-frame"

_KINDS: Final[dict[str, np.dtype[Any]]] = {"i4": np.dtype("<i4"), "f4": np.dtype("<f4"), "f8": np.dtype("<f8")}

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def pack(head: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Return one message.

    Args:
        head: what JSON can represent; without the key "arrays".
        arrays: by name; integers are sent as int32, other numbers as float32, or float64 if they are.
    """
    shapes, parts = {}, []
    for name, array in arrays.items():
        kind = "i4" if array.dtype.kind in "iu" else "f8" if array.dtype == np.float64 else "f4"
        shapes[name] = [kind, *array.shape]
        parts.append(np.ascontiguousarray(array, dtype=_KINDS[kind]).tobytes())
    line = json.dumps({**head, "arrays": shapes}, separators=(",", ":")).encode()
    return b"".join((line, b"\n", *parts))


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the head and the arrays of a message.

    Raises:
        RemoteError: the message is damaged.
    """
    line, newline, rest = body.partition(b"\n")
    try:
        if not newline:
            raise ValueError("it has no first line")
        head = json.loads(line)
        shapes = head.pop("arrays")
        arrays: dict[str, Array] = {}
        at = 0
        for name, (kind, *shape) in shapes.items():
            if any(type(size) is not int or size < 0 for size in shape):
                raise ValueError(f"{shape} is not a shape")
            count, dtype = int(np.prod(shape, dtype=np.int64)), _KINDS[kind]
            end = at + count * dtype.itemsize
            if end > len(rest):
                raise ValueError(f"the array {name} is cut off")
            arrays[name] = np.frombuffer(rest[at:end], dtype=dtype).reshape(shape)
            at = end
        if at != len(rest):
            raise ValueError(f"{len(rest) - at} bytes follow the last array")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteError(
            f"a message of {len(body):,} bytes is not one of a RAPID drafter ({error}): the other side may have "
            "another version of rapid-integrations, or be another program",
            code="answer",
        ) from None
    return head, arrays
