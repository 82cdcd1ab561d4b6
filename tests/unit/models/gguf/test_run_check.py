"""`rapid models check` of a GGUF file: it says from the header what loading the file does."""

import json

import pytest
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cli.app import app
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf.run_check import check_gguf
from rapid_integrations.models.gguf.stored import StoredLM
from tests.toys import gguf_families, gguf_gemma3n, gguf_gemma4, gguf_hybrids, gguf_latent, gguf_mixers
from tests.toys.command_line import CliRunner
from tests.toys.gguf_experts import MERGES, TOKENIZER
from tests.toys.gguf_file import write_gguf
from tests.toys.models import tiny_model

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
FAMILIES = [(gguf_families.made, gguf_families.write_family, name) for name in gguf_families.ARCHITECTURES]
FAMILIES += [(gguf_mixers.made, gguf_mixers.write_mixers, name) for name in gguf_mixers.FAMILIES]
FAMILIES += [(gguf_gemma4.made, gguf_gemma4.write_gemma4, name) for name in gguf_gemma4.MODELS]
FAMILIES += [(gguf_latent.made, gguf_latent.write_latent, name) for name in gguf_latent.FAMILIES | gguf_latent.OTHERS]
FAMILIES += [(lambda name: gguf_gemma3n.made(), gguf_gemma3n.write_gemma3n, "gemma3n")]
FAMILIES += [(gguf_hybrids.made, gguf_hybrids.write_hybrid, "qwen3_5_text")]


@pytest.mark.parametrize(
    ("made", "write", "name"),
    [
        pytest.param(*each, id=each[-1], marks=gguf_gemma4.needs_names if each[0] is gguf_gemma4.made else [])
        for each in FAMILIES
    ],
)
def test_blocks_of_a_described_family_stay(tmp_path, made, write, name):
    model = made(name)
    kind = check_gguf(write(tmp_path / "tiny.gguf", model))
    assert (kind.how, kind.architecture, kind.reason) == ("kernels", type(model).__name__, "")
    assert kind.weights.startswith("Q4_K, ")


@pytest.mark.parametrize(
    "metadata",
    [
        {"expert_weights_scale": 3},
        {"expert_weights_norm": [1, 2]},
        {"attention__layer_norm_rms_epsilon": 0},
        {"rope__freq_base": 1},
    ],
    ids=str,
)
def test_numbers_that_transformers_does_not_take(tmp_path, metadata):
    path = gguf_latent.write_latent(tmp_path / "tiny.gguf", gguf_latent.made("deepseek_v2"), **metadata)
    assert check_gguf(path).how == "refused"
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(ModelLoadError):
            loader.load(path, dtype=dtype)


def refused_or_loaded(path):
    """Return "refused", "kernels" for blocks that stay, or "copy" for a dequantised model, as loading has it."""
    try:
        loaded = loader.load(path, dtype="bfloat16")
    except (ModelLoadError, UnsupportedModelError):
        return "refused"
    loaded.lm.close()
    return "kernels" if isinstance(loaded.lm, StoredLM) else "copy"


def said(path):
    kind = check_gguf(path)
    return "refused" if kind.how == "refused" else "copy" if "copy" in kind.weights else kind.how


@needs_kernels
@pytest.mark.parametrize(
    ("formats", "metadata"),
    [
        (None, {}),  # float32
        (lambda name: Kind.Q8_0, {}),
        (lambda name: Kind.TQ2_0 if "ffn_down" in name else Kind.Q4_K, {}),  # one that the kernels do not know
        (lambda name: Kind.Q4_K, {"llama__rope__scaling__type": "some other"}),
        (lambda name: Kind.Q4_K, {"general__architecture": "mamba2"}),
        (lambda name: Kind.Q4_K, {"general__architecture": "whisper"}),
        (lambda name: Kind.Q4_K, {"general__type": "adapter"}),
        (lambda name: Kind.Q4_K, {"tokenizer__ggml__tokens": None}),
    ],
)
def test_what_is_said_is_what_loading_does(tmp_path, formats, metadata):
    sizes = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "vocab_size": len(TOKENIZER)}
    path, *_ = write_gguf(
        tmp_path / "tiny.gguf", tiny_model("llama", 1, **sizes), TOKENIZER, MERGES, formats=formats, **metadata
    )
    assert said(path) == refused_or_loaded(path)


def test_a_file_without_one_of_its_tensors_is_refused(tmp_path):
    path = gguf_families.write_family(
        tmp_path / "tiny.gguf", gguf_families.made("olmo2"), leave_out=("blk.0.attn_q.weight",)
    )
    kind = check_gguf(path)
    assert kind.how == "refused" and kind.reason == "65,536 of the model's numbers are not in the file"


def test_the_command_takes_files_folders_and_packaged_names(tmp_path):
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("smollm3"))
    for name in (path, tmp_path):
        result = CliRunner().invoke(app, ["models", "check", str(name), "--json"])
        assert result.exit_code == 0 and json.loads(result.stdout)["architecture"] == "SmolLM3ForCausalLM"
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(path.read_bytes()[:200])
    result = CliRunner().invoke(app, ["models", "check", str(damaged)])
    assert result.exit_code == 1 and "a string of 19 bytes, which is impossible" in result.stderr
    result = CliRunner().invoke(app, ["models", "check", "gemma-3-270m"])  # nothing has been fetched to this home
    assert result.exit_code == 1 and "rapid models pull gemma-3-270m" in result.stderr
