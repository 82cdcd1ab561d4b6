"""GGUF models in several files: whole whichever part is named, or refused with what is missing. Never random."""

import shutil
import warnings

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.gguf import converted
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.parts import join
from rapid_integrations.models.loader import load
from tests.toys.gguf_file import write_gguf
from tests.toys.models import byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("home")

IDS = torch.arange(3, 80)
MERGES = (("t", "h"),)
TOKENIZER = byte_tokenizer(merges=MERGES)


def tiny(seed=1, **config):
    return tiny_model("qwen2", seed, vocab_size=len(TOKENIZER), **config)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def write(folder, parts=3, seed=1, name="tiny.gguf", **options):
    return write_gguf(folder / name, tiny(seed), TOKENIZER, MERGES, parts=parts, **options)


@torch.inference_mode()
def logits(loaded):
    return loaded.lm.forward([Rows(IDS, loaded.lm.new_cache(len(IDS)), len(IDS))])[0]


def require_right(loaded, seed=1, **config):
    with torch.inference_mode():
        torch.testing.assert_close(logits(loaded), tiny(seed, **config)(IDS[None]).logits[0], rtol=0, atol=1e-3)


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("part", [0, 1, 2, None])
def test_every_part_and_the_folder_lead_to_the_whole_model(folder, part, home):
    paths = write(folder)
    loaded = load(folder if part is None else paths[part], dtype="float32")
    require_right(loaded)
    require_right(load(folder, dtype="float32"))  # the copy that was kept
    assert len(list((home / "dequantised").iterdir())) == 1


@pytest.mark.parametrize("lost", [[1], [0], [0, 2]])
def test_parts_that_are_missing_are_named(folder, lost, home):
    paths = write(folder)
    for index in lost:
        paths[index].unlink()
    names = ", ".join(paths[index].name for index in lost)
    for given in (folder, next(path for path in paths if path.exists())):
        with pytest.raises(ModelLoadError, match=f"{len(lost)} of them (is|are) not in .*{names}"):
            load(given)
    assert not home.exists()


def test_parts_of_different_models_are_refused(folder):
    paths = write(folder)
    (folder / "other").mkdir()
    other = write(folder / "other", leave_out=("blk.0.attn_q.bias",))
    shutil.copy(other[1], paths[1])
    with pytest.raises(ModelLoadError, match="more than once|announces"):
        load(paths[0])


def test_renamed_parts_are_refused(folder):
    first, second, _ = write(folder)
    first.rename(folder / "swap")
    second.rename(first)
    (folder / "swap").rename(second)
    with pytest.raises(ModelLoadError, match="says that it is part 2 of 3, its name part 1 of 3"):
        load(folder)


def test_a_part_whose_name_does_not_say_so_is_refused(folder):
    first, *_ = write(folder)
    first.rename(folder / "model.gguf")
    for path in folder.glob("*-of-*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="one of 3 parts of a model, but its name does not say which"):
        load(folder / "model.gguf")


def test_two_models_in_parts_in_one_folder_have_to_be_told_apart(folder):
    write(folder)
    paths = write(folder, seed=2, name="other.gguf")
    with pytest.raises(ModelLoadError, match="2 GGUF files. Name one of them"):
        load(folder)
    require_right(load(paths[2], dtype="float32"), seed=2)


def test_a_file_cut_into_pieces_has_to_be_put_together(folder):
    (path,) = write(folder, parts=1)
    content = path.read_bytes()
    (folder / "tiny.gguf-split-a").write_bytes(content[:1000])
    (folder / "tiny.gguf-split-b").write_bytes(content[1000:])
    path.unlink()
    with pytest.raises(ModelLoadError, match="cat tiny.gguf-split-a tiny.gguf-split-b > model.gguf"):
        load(folder)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    "name", ["blk.1.ffn_up.weight", "blk.0.attn_k.bias", "output_norm.weight", "token_embd.weight"]
)
def test_a_weight_that_is_in_no_file_is_named_and_nothing_is_kept(folder, name, parts, home):
    write(folder, parts=parts, leave_out=(name,))
    with pytest.raises(ModelLoadError, match="random"):
        load(folder)
    assert not list(home.rglob("complete"))


@pytest.mark.long
def test_a_copy_of_an_earlier_version_is_made_again(folder, home):
    """It may hold random weights, and says nothing of it."""
    (path,) = write(folder, parts=1)
    load(path, dtype="float32")
    (kept,) = (home / "dequantised").iterdir()
    tiny(5).save_pretrained(kept)
    (kept / "complete").write_bytes(b"")  # as release 0.1 left it
    require_right(load(path, dtype="float32"))
    assert (kept / "complete").read_text() == converted._VERSION


@pytest.mark.long
def test_a_kept_copy_that_lost_weights_is_made_again(folder, home):
    from safetensors.torch import load_file, save_file

    (path,) = write(folder, parts=1)
    load(path, dtype="float32")
    (kept,) = (home / "dequantised").iterdir()
    tensors = load_file(kept / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, kept / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="converted again"):
        require_right(load(path, dtype="float32"))


def test_joined_parts_are_the_file_that_was_split(folder):
    (whole,) = write(folder, parts=1, name="whole.gguf")
    headers = [read_header(path) for path in write(folder, parts=4)]
    joined = read_header(join(headers, folder / "joined.gguf"))
    expected = read_header(whole)
    assert dict(joined.metadata) == dict(expected.metadata)

    def contents(header):
        data = header.path.read_bytes()
        return {each.name: data[header.data_start + each.offset :][: each.size] for each in header.tensors}

    assert contents(joined) == contents(expected)


def test_weights_that_no_model_has_are_said(folder):
    (path,) = write(folder, parts=1)
    model = tiny(1, num_hidden_layers=3)
    write_gguf(path, model, TOKENIZER, MERGES, qwen2__block_count=2)
    with pytest.warns(UserWarning, match="do not belong to the model"):
        load(path, dtype="float32")


@pytest.mark.parametrize(("kind", "factor"), [("linear", 4.0), ("yarn", 4.0)])
def test_a_stretched_rope_is_read(folder, kind, factor):
    options = {"qwen2__rope__scaling__type": kind, "qwen2__rope__scaling__factor": factor}
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": factor}
    if kind == "yarn":
        options["qwen2__rope__scaling__original_context_length"] = 64
        rope["original_max_position_embeddings"] = 64
    (path,) = write(folder, parts=1, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_right(load(path, dtype="float32"), rope_parameters=rope)


def test_a_rope_that_nobody_knows_is_refused(folder):
    (path,) = write(folder, parts=1, qwen2__rope__scaling__type="spiral")
    with pytest.raises(UnsupportedModelError, match="'spiral'"):
        load(path)
