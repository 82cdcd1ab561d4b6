"""The cache against a plain list of rows; saved caches against everything that can happen to a file."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rapid_integrations.cache import CAPACITY_BUCKET, KVCache
from rapid_integrations.cache.saved_cache import read_cache, write_cache
from rapid_integrations.errors import CacheError
from tests.toys.budget import BUDGET, examples
from tests.toys.errors import coded

# (H_kv, key width, value width) of each layer: no two alike, as in a model with a mixture of layers.
SHAPES = ((2, 4, 4), (1, 3, 5))
CAPACITY = CAPACITY_BUCKET


def random_rows(generator, tokens, dtype=torch.float32):
    """Return the keys and values of every layer for `tokens` new tokens."""
    return [
        tuple(torch.randn(1, heads, tokens, width, generator=generator).to(dtype) for width in (key, value))
        for heads, key, value in SHAPES
    ]


def forward(cache, rows):
    """Do to the cache what a forward pass does; return the views that each layer saw."""
    seen = [cache.write(layer, *of_layer)[0] for layer, of_layer in enumerate(rows)]
    cache.advance(rows[0][0].shape[2])
    return seen


def filled(tokens, *, seed=0, dtype=torch.float32, capacity=CAPACITY):
    cache = KVCache(len(SHAPES), capacity)
    forward(cache, random_rows(torch.Generator().manual_seed(seed), tokens, dtype))
    return cache


def assert_holds(cache, expected):
    """`expected`: per layer, key and value rows (1, H_kv, length, width)."""
    for layer, of_layer in enumerate(expected):
        for held, wanted in zip(cache.layer(layer), of_layer, strict=True):
            torch.testing.assert_close(held, wanted, rtol=0, atol=0)


def buffers(cache):
    """Return where in memory each layer's keys and values lie."""
    return [tensor.untyped_storage().data_ptr() for layer in range(cache.layers) for tensor in cache.layer(layer)]


def assert_same(cache, other):
    assert cache.length == other.length
    assert cache.layers == other.layers
    assert_holds(cache, [other.layer(layer) for layer in range(other.layers)])


def save(cache, path):
    write_cache(path, cache, np.arange(cache.length), "some model")


def load(path, capacity):
    saved, cache = read_cache(path, capacity)
    assert saved.model == "some model" and saved.token_ids.tolist() == list(range(cache.length))
    return cache


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("forward"), st.integers(1, 200)),
        st.tuples(st.just("fail"), st.integers(1, 200)),
        st.tuples(st.just("rollback"), st.floats(0, 1)),
        st.tuples(st.just("reload"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=examples(120))
@given(operations=OPERATIONS, seed=st.integers(0, 2**16))
def test_any_history_of_forwards_rollbacks_and_reloads_equals_a_list_of_rows(operations, seed):
    generator = torch.Generator().manual_seed(seed)
    cache = KVCache(len(SHAPES), CAPACITY)
    forward(cache, random_rows(generator, 1))
    cache.rollback(0)
    expected = [tuple(rows[:, :, :0] for rows in of_layer) for of_layer in random_rows(generator, 1)]
    length = 0
    allocated = buffers(cache)
    nbytes = cache.nbytes
    for name, argument in operations:
        if name == "forward":
            rows = random_rows(generator, argument)
            if length + argument > CAPACITY:
                with pytest.raises(CacheError, check=coded("cache.full")):
                    forward(cache, rows)
            else:
                seen = forward(cache, rows)
                expected = [
                    tuple(torch.cat(pair, dim=2) for pair in zip(old, new, strict=True))
                    for old, new in zip(expected, rows, strict=True)
                ]
                length += argument
                for views, of_layer in zip(seen, expected, strict=True):
                    for view, wanted in zip(views, of_layer, strict=True):
                        torch.testing.assert_close(view, wanted, rtol=0, atol=0)
        elif name == "fail" and length + argument <= CAPACITY:
            cache.write(0, *random_rows(generator, argument)[0])  # the second layer raises before it writes
        elif name == "rollback":
            length = int(argument * length)
            cache.rollback(length)
            expected = [tuple(rows[:, :, :length] for rows in of_layer) for of_layer in expected]
        elif name == "reload":
            with tempfile.TemporaryDirectory() as folder:
                save(cache, Path(folder) / "cache")
                cache = load(Path(folder) / "cache", CAPACITY)
            allocated = buffers(cache)
        assert cache.length == length
        assert_holds(cache, expected)
        assert buffers(cache) == allocated  # nothing is allocated again or moved
        assert cache.nbytes == nbytes


@pytest.mark.parametrize(
    ("asked", "given_"), [(1, 512), (511, 512), (512, 512), (513, 1024), (1024, 1024), (8193, 8704)]
)
def test_a_capacity_is_rounded_up_to_a_bucket(asked, given_):
    assert KVCache(2, asked).capacity == given_


def test_nothing_is_allocated_before_the_first_forward():
    cache = KVCache(2, 10_000_000)
    assert (cache.nbytes, cache.filled_layers, cache.length, cache.layers) == (0, 0, 0, 2)


def test_nbytes_counts_every_buffer_at_its_capacity():
    cache = filled(3)
    assert cache.nbytes == sum(heads * CAPACITY * (key + value) * 4 for heads, key, value in SHAPES)
    assert cache.filled_layers == 2
    assert filled(3, dtype=torch.bfloat16).nbytes == cache.nbytes // 2


def test_a_write_hands_out_views_not_copies():
    cache = filled(5)
    [(keys, values)] = cache.write(0, *random_rows(torch.Generator(), 2)[0])
    assert keys.shape[2] == values.shape[2] == 7
    assert keys.data_ptr() == cache.layer(0)[0].data_ptr()
    assert values.data_ptr() == cache.layer(0)[1].data_ptr()


def test_a_full_cache_takes_its_last_token_and_refuses_the_next():
    cache = filled(CAPACITY - 1)
    forward(cache, random_rows(torch.Generator(), 1))
    before = [tuple(t.clone() for t in cache.layer(layer)) for layer in range(2)]
    with pytest.raises(CacheError, check=coded("cache.full")):
        forward(cache, random_rows(torch.Generator(), 1))
    assert cache.length == CAPACITY
    assert_holds(cache, before)


@pytest.mark.parametrize("to_length", [-1, 6])
def test_a_rollback_outside_of_what_is_held_is_refused(to_length):
    cache = filled(5)
    with pytest.raises(CacheError, check=coded("cache.rollback")):
        cache.rollback(to_length)
    assert cache.length == 5


def test_a_layer_that_was_never_written_cannot_be_read_or_saved(tmp_path):
    cache = KVCache(2, 8)
    cache.write(0, *random_rows(torch.Generator(), 1)[0])
    with pytest.raises(CacheError, check=coded("cache.unwritten")):
        cache.layer(1)
    with pytest.raises(CacheError, check=coded("cache.unwritten")):
        save(cache, tmp_path / "cache")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_saved_cache_comes_back_and_goes_on(tmp_path, dtype):
    cache = filled(37, dtype=dtype)
    cache.rollback(30)
    save(cache, tmp_path / "cache")
    loaded = load(tmp_path / "cache", 600)
    assert_same(loaded, cache)
    assert loaded.capacity == 1024
    assert loaded.layer(0)[0].dtype == dtype
    more = random_rows(torch.Generator().manual_seed(9), 3, dtype)
    forward(cache, more)
    forward(loaded, more)
    assert_same(loaded, cache)


def test_only_the_held_rows_are_written(tmp_path):
    cache = filled(400)
    cache.rollback(2)
    save(cache, tmp_path / "cache")
    assert (tmp_path / "cache").stat().st_size < 2000


def test_a_cache_that_does_not_fit_is_refused(tmp_path):
    save(filled(600, capacity=1024), tmp_path / "cache")
    with pytest.raises(CacheError, check=coded("cache.full")):
        load(tmp_path / "cache", 512)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "cache"
    save(filled(20), path)
    return path


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    content = saved.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1}:
        saved.write_bytes(content[:length])
        with pytest.raises(CacheError, check=coded("cache.foreign")):
            load(saved, CAPACITY)


@pytest.mark.long
def test_a_file_with_any_bit_of_its_header_flipped_is_refused_or_right(saved):
    cache, content = filled(20), saved.read_bytes()
    for place in range(8 + int.from_bytes(content[:8], "little")):
        for bit in range(8) if BUDGET == "nightly" else (place % 8, (3 * place + 1) % 8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            saved.write_bytes(damaged)
            try:
                loaded = load(saved, CAPACITY)
            except CacheError:
                continue
            assert_same(loaded, cache)


@pytest.mark.parametrize("content", [b"", b"GGUF" + bytes(100), b"\x80\x04pickle", bytes(range(256)) * 8])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "cache").write_bytes(content)
    with pytest.raises(CacheError, check=coded("cache.foreign")):
        load(tmp_path / "cache", CAPACITY)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(CacheError, check=coded("cache.foreign")):
            load(path, CAPACITY)


def test_safetensors_that_are_no_cache_are_refused(tmp_path):
    save_file({"model.embed_tokens.weight": torch.zeros(4, 4)}, tmp_path / "weights", metadata={"format": "pt"})
    save_file({"0.key": torch.zeros(4, 4)}, tmp_path / "bare")
    for name in ("weights", "bare"):
        with pytest.raises(CacheError, check=coded("cache.foreign")):
            load(tmp_path / name, CAPACITY)


def resave(path, change):
    """Save the cache in `path` again with `change(tensors, metadata)` applied."""
    tensors = load_file(path)
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    metadata = header["__metadata__"]
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def drop_layer(tensors, metadata):
    del tensors["1.key"], tensors["1.value"]


def drop_the_digest(tensors, metadata):
    del metadata["sha256"]


def claim_another_format(tensors, metadata):
    metadata["format"] = "pt"


def change_a_row(tensors, metadata):
    tensors["0.key"][0, 0, 3] += 1


def change_the_type(tensors, metadata):
    tensors["0.key"] = tensors["0.key"].double()


def shorten_a_layer(tensors, metadata):
    tensors["1.key"], tensors["1.value"] = tensors["1.key"][:, :, :10], tensors["1.value"][:, :, :10]


def shorten_values_only(tensors, metadata):
    tensors["1.value"] = tensors["1.value"][:, :, :10].contiguous()


def keep_one_row_of_values(tensors, metadata):
    tensors["1.value"] = tensors["1.value"][:, :, :1].contiguous()


def make_a_batch(tensors, metadata):
    tensors["1.value"] = torch.cat([tensors["1.value"]] * 2)


def flatten(tensors, metadata):
    tensors["0.key"] = tensors["0.key"].flatten()


@pytest.mark.parametrize(
    "change",
    [
        drop_layer,
        drop_the_digest,
        claim_another_format,
        change_a_row,
        change_the_type,
        shorten_a_layer,
        shorten_values_only,
        keep_one_row_of_values,
        make_a_batch,
        flatten,
    ],
)
def test_a_file_whose_parts_do_not_fit_together_is_refused(saved, change):
    resave(saved, change)
    with pytest.raises(CacheError):
        load(saved, CAPACITY)


def test_damaged_rows_are_refused(saved):
    content = bytearray(saved.read_bytes())
    content[-3] ^= 0x40  # one bit of one value
    saved.write_bytes(content)
    with pytest.raises(CacheError):
        load(saved, CAPACITY)


def test_buffers_for_a_kernel_that_writes_itself():
    cache = KVCache(2, 512)
    with pytest.raises(CacheError, check=coded("cache.unwritten")):
        cache.tail(1)
    rows = torch.ones(1, 2, 510, 4)
    for layer in range(2):
        cache.write(layer, rows, rows)
    cache.advance(510)
    buffers = cache.tail(2)
    assert len(buffers.keys) == len(buffers.values) == 2 and buffers.keys[0].shape == (1, 2, 512, 4)
    assert buffers.keys[0].data_ptr() == cache.layer(0)[0].data_ptr()
    assert cache.tail(1) is buffers
    with pytest.raises(CacheError, check=coded("cache.full")):
        cache.tail(3)


def test_rows_of_another_device_stay_there():
    cache = KVCache(1, 512)
    rows = torch.ones(1, 2, 3, 4, device="meta")
    cache.write(0, rows, rows)
    assert cache.tail(1).keys[0].device.type == "meta"
