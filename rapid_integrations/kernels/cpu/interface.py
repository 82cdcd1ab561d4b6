"""The C interface of the kernels as Python sees it: structs, functions, and whether a library has the same.

`interface.h` has the originals. Structs hold bare addresses, so a field that only one side knows would be written over
something else: a library is asked how its structs lie in memory before anything is passed to it.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

FOLDER = Path(__file__).parent
SOURCES = tuple(sorted(FOLDER.glob("*.cpp")))
SUFFIX: Final = ".dll" if sys.platform == "win32" else ".so"  # of a library; CMake's modules are .so on macOS, too

KV_BF16, KV_INT8 = 0, 1  # how a cache's rows are stored


class Matrix(ctypes.Structure):
    """A weight (rows, columns)."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "rows", "columns", "parts")),
        *((name, ctypes.c_void_p) for name in ("data", "scale", "bias")),
    )


class Norm(ctypes.Structure):
    """A normalisation; all zeros stand for none."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "scope")),
        *((name, ctypes.c_float) for name in ("eps", "offset")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
    )


class Rope(ctypes.Structure):
    """How the heads of a layer are rotated."""

    _fields_ = tuple((name, ctypes.c_int32) for name in ("first", "pairs", "interleaved", "norm_behind"))


class Sight(ctypes.Structure):
    """Which keys a query sees, and what becomes of its scores."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("window", "chunk")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
    )


class Branches(ctypes.Structure):
    """The norms where experts stand beside an MLP."""

    _fields_ = tuple((name, Norm) for name in ("router", "before", "after", "after_mlp"))


class Experts(ctypes.Structure):
    """The experts of a layer."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("count", "taken", "routing", "normalised")),
        *((name, ctypes.c_int32) for name in ("groups", "groups_taken", "widest", "shared")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("scales_inputs", "group_best")),
        ("router", Matrix),
        ("correction", ctypes.c_void_p),
        *((name, ctypes.POINTER(Matrix)) for name in ("gate_up", "down")),
        ("logit_scale", ctypes.c_float),
        ("factors", ctypes.c_void_p),
        ("branches", ctypes.POINTER(Branches)),
        ("logit_softcap", ctypes.c_float),
        ("by_outputs", ctypes.c_int32),
        *((name, ctypes.c_float) for name in ("shared_scale", "near")),
    )


class Latent(ctypes.Structure):
    """What multi-head latent attention has beside another one."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rank", "plain", "rotated", "value")),
        *((name, Norm) for name in ("query", "latent")),
        ("query_up", Matrix),
        *((name, ctypes.POINTER(Matrix)) for name in ("keys", "values")),
    )


class Indexer(ctypes.Structure):
    """What chooses the keys that a row of latent attention sees."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("heads", "dim", "slot")),
        *((name, Matrix) for name in ("query", "key", "weights")),
        ("norm", Norm),
        ("rope", Rope),
    )


class Recurrence(ctypes.Structure):
    """What stands in place of an attention or beside it."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("key_heads", "value_heads", "key_dim", "value_dim")),
        *((name, ctypes.c_int32) for name in ("channels", "taps", "together", "tiled", "gates_behind", "first")),
        *((name, ctypes.c_int32) for name in ("sigmoid_gates", "gelu_gates", "blocks")),
        *((name, ctypes.c_float) for name in ("gate_factor", "rate_factor", "least_rate", "rate_scale", "factor")),
        *((name, Matrix) for name in ("rates", "decay_up", "gate_up", "selected", "step_up")),
        *((name, Norm) for name in ("step_norm", "key_norm", "query_norm")),
        ("gates", ctypes.POINTER(Matrix)),
        ("out", Matrix),
        ("norm", Norm),
        *((name, ctypes.c_void_p) for name in ("tap", "tap_bias", "decay", "bias", "skip")),
    )


class Adapter(ctypes.Structure):
    """A product of low rank beside a matrix of which several layers share the weights."""

    _fields_ = (("down", Matrix), ("up", ctypes.POINTER(Matrix)), ("parts", ctypes.c_int32))


class Act(ctypes.Structure):
    """What is done to the gate of an MLP, and the numbers of one that has some."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        *((name, ctypes.c_float) for name in ("positive", "negative", "slope", "least")),
    )


class LayerInput(ctypes.Structure):
    """What a layer adds at its end."""

    _fields_ = (
        *((name, Matrix) for name in ("gate", "projection")),
        ("norm", Norm),
        ("activation", Act),
    )


class LayerInputs(ctypes.Structure):
    """Inputs of every layer."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("width", "tokens")),
        ("table", ctypes.c_void_p),
        ("projection", Matrix),
        ("norm", Norm),
        *((name, ctypes.c_float) for name in ("scale", "projection_scale", "factor")),
    )


class Laurel(ctypes.Structure):
    """A learned augmented residual."""

    _fields_ = (("left", Matrix), ("right", Matrix), ("norm", Norm))


class Alternation(ctypes.Structure):
    """How a layer guesses and corrects streams of states."""

    _fields_ = (
        ("router", Matrix),
        ("norm", Norm),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("prediction", "correction", "output")),
    )


class Streams(ctypes.Structure):
    """Streams of states."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("count", "active")),
        *((name, ctypes.POINTER(Matrix)) for name in ("spread", "merged")),
    )


class Layer(ctypes.Structure):
    """A decoder layer."""

    _fields_ = (
        *((name, Matrix) for name in ("qkv", "out", "gate_up", "down", "aside")),
        *((name, Norm) for name in ("before_attention", "after_attention", "before_mlp", "after_mlp")),
        *((name, Norm) for name in ("query", "key", "value")),
        ("rope", Rope),
        ("sight", Sight),
        *((name, ctypes.c_void_p) for name in ("sinks", "balance")),
        ("experts", ctypes.POINTER(Experts)),
        ("latent", ctypes.POINTER(Latent)),
        ("input", ctypes.POINTER(LayerInput)),
        ("recurrence", ctypes.POINTER(Recurrence)),
        ("laurel", ctypes.POINTER(Laurel)),
        ("alternation", ctypes.POINTER(Alternation)),
        *((name, ctypes.POINTER(Adapter)) for name in ("qkv_adapter", "gate_up_adapter")),
        ("indexer", ctypes.POINTER(Indexer)),
        *((name, ctypes.c_int32) for name in ("heads", "kv_heads", "head_dim", "slot", "state", "shares")),
        *((name, ctypes.c_int32) for name in ("growth_every", "growth_ahead")),
        *((name, ctypes.c_float) for name in ("growth_scale", "scale")),
        ("activation", Act),
        *((name, ctypes.c_int32) for name in ("gated", "parallel", "output_gates", "softplus_gates")),
        *((name, ctypes.c_float) for name in ("attention_residual", "mlp_residual", "gate_factor")),
        ("sparse", ctypes.c_int32),
        ("quantile", ctypes.c_float),
        *((name, ctypes.c_int32) for name in ("chosen", "with_embedding")),
        *((name, ctypes.c_float) for name in ("attention_kept", "mlp_kept")),
    )


class Model(ctypes.Structure):
    """A decoder: its shape, its layers, and what comes before and behind them."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("layers", "hidden", "heads", "intermediate")),
        *((name, ctypes.c_int32) for name in ("vocabulary", "turned")),
        ("layer", ctypes.POINTER(Layer)),
        ("final_norm", Norm),
        ("head", Matrix),
        ("embedding", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("embedding_scale", "logit_scale", "logit_softcap")),
        ("embedding_kind", ctypes.c_int32),
        ("inputs", ctypes.POINTER(LayerInputs)),
        ("streams", ctypes.POINTER(Streams)),
        ("embedding_norm", Norm),
    )


class Segment(ctypes.Structure):
    """Rows of a cache that lie together, in all layers."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("begin", "capacity")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )


class Rows(ctypes.Structure):
    """What one reader wants from a decode step."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "keep")),
        ("past", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("ids", "parents", "cos", "sin", "learned")),
        ("segments", ctypes.c_int64),
        ("segment", ctypes.POINTER(Segment)),
        *((name, ctypes.c_void_p) for name in ("state", "inputs", "state_into", "inputs_into", "record")),
        ("record_apart", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("recorded", "settled")),
    )


class Step(ctypes.Structure):
    """One decode step, for all of its readers."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("readers", "threads", "levels", "kv")),
        ("reader", ctypes.POINTER(Rows)),
        *((name, ctypes.c_void_p) for name in ("logits", "level", "states", "scratch")),
    )


class Rotation(ctypes.Structure):
    """The rotation of a prompt's queries and keys."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "heads", "kv_heads", "head_dim", "threads", "turned")),
        *((name, Norm) for name in ("query", "key")),
        ("rope", Rope),
        *((name, ctypes.c_void_p) for name in ("qkv", "cos", "sin", "out")),
    )


class Recurring(ctypes.Structure):
    """One recurrence over rows of a prompt."""

    _fields_ = (
        ("recurrence", ctypes.POINTER(Recurrence)),
        *((name, ctypes.c_int32) for name in ("rows", "threads")),
        *((name, ctypes.c_void_p) for name in ("record", "state", "inputs", "state_into", "out")),
    )


class Alternating(ctypes.Structure):
    """A prompt's rows where streams of states are guessed or corrected."""

    _fields_ = (
        ("alternation", ctypes.POINTER(Alternation)),
        *((name, ctypes.c_int32) for name in ("rows", "columns", "threads", "active")),
        *((name, ctypes.c_void_p) for name in ("streams", "computed", "out", "scaled")),
    )


class LayerSegment(ctypes.Structure):
    """Rows of one layer that lie together."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("begin", "key_stride", "value_stride")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )


class Attention(ctypes.Structure):
    """The attention of a prompt's tokens."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "heads", "kv_heads", "head_dim", "threads", "kv")),
        ("sight", Sight),
        ("sinks", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("past", "row_stride", "head_stride")),
        ("segments", ctypes.c_int64),
        ("segment", ctypes.POINTER(LayerSegment)),
        *((name, ctypes.c_void_p) for name in ("queries", "out", "taken")),
    )


STRUCTS = (
    *(Matrix, Norm, Rope, Sight, Branches, Experts, Latent, Indexer, Recurrence, Adapter, Act, LayerInput, LayerInputs),
    *(Laurel, Alternation, Streams, Layer, Model),
    *(Segment, Rows, Step, Rotation, Recurring, Alternating, LayerSegment, Attention),
)


def opened(path: Path) -> ctypes.CDLL:
    """Load a library, and say what its functions take.

    Raises:
        OSError: it cannot be loaded, or it is not made of the sources that lie beside this module.
    """
    library = ctypes.CDLL(str(path))  # calls through it release Python's lock
    try:
        library.rapid_sources.restype = library.rapid_layouts.restype = ctypes.c_char_p
        if library.rapid_sources().decode() != sources_key():
            raise OSError(f"{path} was built from other sources than those in {FOLDER}")
        theirs, ours = set(library.rapid_layouts().decode().splitlines()), set(layouts())
    except AttributeError as error:
        raise OSError(f"{path} is of another version: {error}") from None
    if theirs != ours:
        first = min(theirs ^ ours)
        raise OSError(f"{path} has other structs than Python: see {first.split()[0]} in interface.h and interface.py")
    _declare(library)
    return library


@lru_cache(maxsize=1)
def sources_key() -> str:
    """Return a hash of what the kernels are built from; CMakeLists.txt computes the same."""
    parts = (hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((*SOURCES, *FOLDER.glob("*.h"))))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def layouts() -> Iterator[str]:
    """Yield what `rapid_layouts` has to say: a line "Struct.field offset size" for each field."""
    for struct in STRUCTS:
        yield f"{struct.__name__} 0 {ctypes.sizeof(struct)}"
        for name, *_ in struct._fields_:
            field = getattr(struct, name)
            yield f"{struct.__name__}.{name} {field.offset} {field.size}"


def _declare(library: ctypes.CDLL) -> None:
    """Say what functions take that are not called with structs, and what they return."""
    real, whole, small, pointer = ctypes.c_double, ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p
    library.rapid_step_floats.restype = whole
    library.rapid_use_openmp.argtypes, library.rapid_take_torchs_threads.argtypes = (pointer,), (small,)
    library.rapid_select_blocks.argtypes = (pointer, ctypes.c_float, pointer)
    library.rapid_softmax.argtypes = (pointer, whole, real, pointer)
    library.rapid_draw.argtypes, library.rapid_draw.restype = (pointer, whole, real), whole
    library.rapid_truncate.argtypes = (pointer, whole, whole, real, real)
    library.rapid_residual.argtypes, library.rapid_residual.restype = (pointer, real, pointer, whole, pointer), real
    library.rapid_p_hat.argtypes = (pointer, pointer, whole, *(real,) * 5, small, pointer, pointer)
    library.rapid_p_hat.restype = whole
    library.rapid_unpack.argtypes = (small, pointer, small, small, small, pointer)
    library.rapid_block_bytes.argtypes = (small,)
    library.rapid_pack_blocks.argtypes = (small, pointer, pointer, small, small, small, pointer)
    library.rapid_unpack_blocks.argtypes = (small, pointer, small, small, small, pointer)
    library.rapid_block_rows.argtypes = (small, pointer, pointer, whole, small, small, pointer)
    library.rapid_product.argtypes = (pointer, pointer, small, small, pointer)
    library.rapid_use_amx.argtypes = (small,)
    library.rapid_prompt_product.argtypes = (pointer, pointer, small, small, pointer)
    library.rapid_gate.argtypes = (pointer, whole, whole, pointer, small, small, ctypes.c_float, small, pointer)
    library.rapid_gate_heads.argtypes = (*(pointer,) * 3, whole, small, pointer)
    library.rapid_add_norm.argtypes = (*(pointer,) * 2, ctypes.c_float, pointer, whole, small, small, pointer)
