"""Model files that lie, explode or loop: errors of ours before anything large is built, and the next load works."""

import base64
import json
import subprocess
import sys
import time

import pytest

from rapid_integrations.config import SamplingParams
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError, ModelLoadError, PromptError
from rapid_integrations.models import isolated
from rapid_integrations.models.loader import load, wrap
from tests.toys.budget import BUDGET
from tests.toys.gguf_file import write_gguf
from tests.toys.model_folder import change
from tests.toys.models import CHATML, byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("home")


def refused(folder, original, *words, seconds=60, next_one=True, **options):
    begun = time.process_time()
    with pytest.raises(ModelLoadError) as caught:
        load(folder, **options)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    assert time.process_time() - begun < seconds  # of the processor: nothing of what it asks for was built
    if next_one:
        assert load(original, dtype="float32").lm.num_parameters > 0


# --- config.json ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10_000_000),
        ("num_hidden_layers", -3),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", True),
        ("num_hidden_layers", "two"),
        ("hidden_size", float("nan")),
        ("hidden_size", 2**40),
        ("hidden_size", -32),
        ("vocab_size", 10**12),
        ("vocab_size", 0),
        ("num_attention_heads", 0),
        ("num_attention_heads", -4),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 0),
        ("max_position_embeddings", -5),
        ("max_position_embeddings", 0),
        ("max_position_embeddings", "many"),
        ("max_position_embeddings", 10**18),
        ("rms_norm_eps", -1.0),
        ("rms_norm_eps", float("inf")),
        ("intermediate_size", -48),
        ("intermediate_size", 10**12),
        ("head_dim", -8),
        ("sliding_window", -20),
        ("initializer_range", float("nan")),
        ("layer_types", ["full_attention"] * 5),
    ],
)
def test_numbers_that_cannot_be(folder, original, field, value):
    change(folder, "config.json", **{field: value})
    refused(folder, original, f"config.json says {field} = ", "needed" if field != "num_key_value_heads" else "")


@pytest.mark.parametrize("theta", [0, -1.0, float("inf"), float("nan"), "large"])
def test_rotary_bases_that_cannot_be(folder, original, theta):
    change(folder, "config.json", rope_parameters={"rope_type": "default", "rope_theta": theta})
    refused(folder, original, "rope_theta", "number", "is needed")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 5_000}, ["5,000 layers", "weights"]),
        ({"hidden_size": 4096}, ["numbers, but its files hold"]),
        ({"vocab_size": 10_000_000}, ["numbers, but its files hold"]),
        ({"intermediate_size": 1_000_000}, ["numbers, but its files hold"]),
        ({"num_hidden_layers": 3}, ["numbers, but its files hold", "random"]),
    ],
)
def test_a_model_larger_than_its_files_is_never_built(folder, original, changes, words):
    change(folder, "config.json", **changes)
    refused(folder, original, *words)


def test_tables_larger_than_any_memory_are_never_built(tmp_path, original):
    from tests.toys.every_family import tiny

    tiny("codegen").save_pretrained(tmp_path / "it")
    byte_tokenizer().save_pretrained(tmp_path / "it")
    change(tmp_path / "it", "config.json", n_positions=1 << 30)
    refused(tmp_path / "it", original, "tables of", "positions")


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, "[" * 80 + "]" * 80, "5", "null", '"text"', '{"a": ' * 500 + "1" + "}" * 500],
    ids=["200,000 open lists", "80 lists", "a number", "nothing", "a text", "500 objects"],
)
def test_files_nested_too_deep_or_of_another_kind(folder, original, file, content):
    (folder / file).write_text(content)
    refused(folder, original, file)


@pytest.mark.parametrize("eos", ["abc", [[1]], {"a": 1}, 1.5])
def test_generation_settings_that_make_no_sense(folder, original, eos):
    """They are refused, or count for nothing; nothing else."""
    change(folder, "generation_config.json", eos_token_id=eos)
    try:
        loaded = load(folder, dtype="float32")
    except ModelLoadError:
        return
    assert all(type(index) is int for index in loaded.vocabulary.eos_token_ids)


# --- tokenizers -------------------------------------------------------------------------------------------------------


def tokenizer_with(folder, **sections):
    change(folder, "tokenizer.json", **sections)


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def charsmap(mapped):
    """A precompiled map with an empty table, and one text."""
    return base64.b64encode((8).to_bytes(4, "little") + bytes(8) + mapped + b"\0").decode()


@pytest.mark.parametrize(
    "normalizer",
    [
        replace({"String": "a"}, "b" * 1_000_000),
        replace({"Regex": "a*"}, "b" * 1_000),
        {"type": "Sequence", "normalizers": [replace({"String": "a"}, "aaaa")] * 20},
        {"type": "Prepend", "prepend": "x" * 1_000_000},
        {"type": "Precompiled", "precompiled_charsmap": charsmap(b"x" * 1_000_000)},
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\xff" * 100).decode()},
        {"type": "Precompiled", "precompiled_charsmap": "%%%"},
        replace({"Regex": "(a|" * 10_000 + "b" + ")" * 10_000}, "x"),
    ],
    ids=["replacement", "regex", "chain", "prefix", "map", "map's table", "map's letters", "pattern"],
)
def test_normalizers_that_explode(folder, original, normalizer):
    tokenizer_with(folder, normalizer=normalizer)
    refused(folder, original, "tokenizer.json could not be loaded")


def test_normalizers_that_people_use_load(folder):
    real = [
        replace({"String": " "}, "\u2581"),
        replace({"Regex": " {2,}"}, " "),
        {"type": "Prepend", "prepend": "\u2581"},
    ]
    tokenizer_with(folder, normalizer={"type": "Sequence", "normalizers": real})
    assert load(folder, dtype="float32").vocabulary is not None


def test_too_many_added_tokens(folder, original):
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = [{"id": 300 + n, "content": f"<{n}>", **token} for n in range(300_001)]
    tokenizer_with(folder, added_tokens=added)
    refused(folder, original, "300,001 added tokens", seconds=60)


def test_a_panic_at_load_is_a_load_error(folder, original, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(*arguments, **options):
        raise PanicException("index out of bounds: the len is 3 but the index is 5")

    import transformers

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", panic)
    with pytest.raises(ModelLoadError, match="index out of bounds"):
        load(folder)
    monkeypatch.undo()
    assert load(original, dtype="float32")


GIVES_UP = {  # a look-behind that is tried at every place until the library gives up, and panics
    "type": "Split",
    "pattern": {"Regex": r"(?:(a+)+)+$(?<=b)"},
    "behavior": "Isolated",
    "invert": False,
}


def test_a_regular_expression_that_gives_up_is_an_error_of_the_request(folder):
    """And the request behind it works."""
    pre = json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]
    tokenizer_with(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": [GIVES_UP, pre]})
    with RapidEngine(load(folder, dtype="float32")) as engine:
        with pytest.raises(PromptError, match="the tokenizer gave up at splitting a text of"):
            engine.generate("a" * 60 + "!")
        assert engine.generate("hello", sampling=SamplingParams(max_new_tokens=2)).usage.completion_tokens >= 1


# --- chat templates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [5, {"default": 5}, [1], True])
def test_templates_that_are_no_text(folder, original, template):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    change(folder, "tokenizer_config.json", chat_template=template)
    refused(folder, original)


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 10000000000 }}",
        "{{ 9 ** 999999 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ 'x' | center(99999999999) }}",
    ],
)
def test_templates_that_explode_while_they_are_compiled(bomb):
    with pytest.raises(ModelLoadError, match="chat template .*which no chat template needs"):
        wrap(tiny_model("llama", 1), byte_tokenizer(chat_template=CHATML + bomb))


LOOPS = {
    "a loop in loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "a text that doubles": "{% set n = namespace(x='x' * 999999) %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}",
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_templates_that_do_not_come_to_an_end(loop):
    """Loading survives them, and so does every request."""
    with RapidEngine.from_models(tiny_model("llama", 1), byte_tokenizer(chat_template=CHATML + loop)) as engine:
        begun = time.process_time()
        with pytest.raises(PromptError, match="does not come to an end|grows without end|memory"):
            engine.generate("hello")
        assert time.process_time() - begun < 60
        plain = engine.generate("hello", apply_chat_template=False, sampling=SamplingParams(max_new_tokens=2))
        assert plain.usage.completion_tokens >= 1


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{# nothing #}", "writes nothing for these messages"),
        ("{% if false %}x{% endif %}", "writes nothing"),
        ("{{ raise_exception('no') }}", "refuses these messages: no"),
        ("{% for", "refuses these messages"),
        ("{{ missing.attribute }}", "refuses these messages"),
        ("{{ ''.__class__.__mro__ }}", "refuses these messages"),
    ],
)
def test_templates_that_write_nothing_or_fail(template, words):
    with RapidEngine.from_models(tiny_model("llama", 1), byte_tokenizer(chat_template=template)) as engine:
        with pytest.raises(PromptError, match=words):
            engine.generate("hello")
        assert engine.generate(
            "hello", apply_chat_template=False, sampling=SamplingParams(max_new_tokens=2)
        ).usage.completion_tokens


def test_long_conversations_render():
    """The bound on steps is far from what real templates need."""
    turns = 5_000 if BUDGET == "nightly" else 2_000
    with RapidEngine.from_models(tiny_model("llama", 1), byte_tokenizer()) as engine:
        messages = [{"role": role, "content": "x"} for _ in range(turns) for role in ("user", "assistant")]
        assert engine.count_tokens([*messages, {"role": "user", "content": "y"}]) > 20 * turns


# --- GGUF metadata ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gguf_file(tmp_path):
    merges = (("t", "h"),)
    tokenizer = byte_tokenizer(merges=merges)
    model = tiny_model("qwen2", 1, vocab_size=len(tokenizer))

    def write(**metadata):
        path = tmp_path / "it.gguf"
        write_gguf(path, model, tokenizer, merges, **metadata)
        return path

    return write


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("qwen2__block_count", 10_000_000, "num_hidden_layers = 10000000"),
        ("qwen2__block_count", 90, "layers"),
        ("qwen2__block_count", 9_000, "layers"),  # nobody builds them first to see how they would run
        ("qwen2__embedding_length", 65_536, "numbers, but its files hold"),
        ("qwen2__context_length", 0, "max_position_embeddings = 0"),
        ("qwen2__attention__head_count", 0, "num_attention_heads = 0"),
        ("qwen2__attention__head_count_kv", 3, "num_key_value_heads = 3"),
        ("qwen2__rope__freq_base", float("nan"), "rope_theta"),
        ("general__alignment", 0, "alignment is 0"),
        ("general__alignment", 3, "alignment is 3"),
        ("tokenizer__ggml__eos_token_id", 10**9, "its eos token has the id 1,000,000,000, but its tokenizer has 261"),
        ("tokenizer__ggml__bos_token_id", 261, "its bos token has the id 261, but its tokenizer has 261 tokens"),
        ("tokenizer__ggml__merges", None, "its tokenizer has no merges"),
        ("tokenizer__ggml__tokens", None, "holds no tokenizer"),
        ("qwen2__vocab_size", 100, "(261, 32), not (100, 32)"),
    ],
)
def test_gguf_metadata_that_cannot_be(gguf_file, original, key, value, words):
    refused(gguf_file(**{key: value}), original, words)


def test_a_gguf_array_of_2_to_the_60_entries(gguf_file, original):
    path = gguf_file()
    data = path.read_bytes()
    at = data.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    path.write_bytes(data[:at] + (2**60).to_bytes(8, "little") + data[at + 8 :])
    refused(path, original, "an array of 1,152,921,504,606,846,976 elements")


def test_a_gguf_tensor_behind_the_end_of_the_file(gguf_file, original):
    path = gguf_file()
    data = path.read_bytes()
    name = b"output_norm.weight"
    at = data.index(name) + len(name) + 4 + 8 + 4  # dimensions, their sizes, the type
    path.write_bytes(data[:at] + (2**40).to_bytes(8, "little") + data[at + 8 :])
    refused(path, original, "output_norm.weight", "cut off")


# --- in a process of its own ------------------------------------------------------------------------------------------


@pytest.fixture
def forked(children, monkeypatch):
    """The child is a fork of an interpreter that has imported its modules, and not a new one; returns its commands."""
    seen = []

    def run(command, *, env, timeout, **_):
        seen.append(command)
        assert command[1:3] == ["-P", "-m"]
        return children.run_module(command[3], *command[4:], seconds=timeout, **env)

    monkeypatch.setattr(isolated.subprocess, "run", run)
    return seen


def test_a_good_folder_passes_the_check_in_a_process_of_its_own(folder):
    assert load(folder, dtype="float32", verify="isolated").lm.num_parameters > 0


def test_a_variable_asks_for_the_check(folder, forked, monkeypatch):
    monkeypatch.setenv("RAPID_VERIFY", "isolated")
    assert load(folder, dtype="float32").lm.num_parameters > 0
    assert len(forked) == 1


def test_a_good_gguf_file_passes_it(gguf_file, forked):
    assert load(gguf_file(), dtype="float32", verify="isolated").lm.num_parameters > 0
    assert len(forked) == 1


def test_what_is_refused_there_has_the_same_words(folder, original, forked):
    change(folder, "config.json", num_hidden_layers=-1)
    refused(folder, original, "num_hidden_layers = -1", verify="isolated", seconds=90)


def kill_the_child(monkeypatch, code):
    """Let the child run this in place of reading a tokenizer."""
    real = subprocess.run

    def run(command, **options):
        return real([sys.executable, "-c", code], **options)

    monkeypatch.setattr(isolated.subprocess, "run", run)


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "died of SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "died of SIGSEGV"),
        ("import os; os._exit(134)", "ended with status 134"),
    ],
)
def test_what_kills_the_process_that_reads_it_is_refused(folder, monkeypatch, code, words):
    kill_the_child(monkeypatch, code)
    with pytest.raises(ModelLoadError, match=words):
        load(folder, verify="isolated")


@pytest.mark.process
def test_what_keeps_that_process_busy_is_refused(folder, monkeypatch):
    kill_the_child(monkeypatch, "while True: pass")
    with pytest.raises(ModelLoadError, match="did not come to an end within 1 seconds"):
        isolated.check_in_a_child(folder, folder, seconds=1)


def test_a_tokenizer_that_really_kills_is_refused_and_this_process_lives(folder, original, children, forked):
    """Replacements in a chain, each below the bound for one: the child runs out of memory."""
    script = (
        "import sys\n"
        "from rapid_integrations.models import isolated_child, tokenizer_bounds\n"
        "tokenizer_bounds._MOST_GROWTH = float('inf')\n"
        "sys.argv = ['isolated_child', sys.argv[1]]\n"
        "isolated_child.main()\n"
    )
    chain = [replace({"String": "a"}, "a" * 1000)] * 4
    tokenizer_with(folder, normalizer={"type": "Sequence", "normalizers": chain})
    done = children.run(script, folder, seconds=120)
    assert done.returncode < 0 or isolated._result(done.stdout)["error"] is not None
    refused(folder, original, "tokenizer.json could not be loaded", verify="isolated", seconds=90)


def test_only_what_is_here_can_be_checked(monkeypatch):
    with pytest.raises(ConfigurationError, match="is a name on a hub.*Download"):
        load("nobody/no-such-model-1b", verify="isolated")
    with pytest.raises(ConfigurationError, match="verify='yes': use 'isolated'"):
        load("x", verify="yes")
    monkeypatch.setenv("RAPID_VERIFY", "maybe")
    with pytest.raises(ConfigurationError, match="RAPID_VERIFY='maybe'"):
        load("x")


# --- changed at random ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded by Linux' call")
@pytest.mark.parametrize("kind", ["folder", "safetensors", "gguf"])
@pytest.mark.parametrize(("seed", "count"), [(0, 12), pytest.param(100, 400, marks=pytest.mark.slow)])
def test_files_changed_at_random_give_errors_of_ours_only(children, kernels, kind, seed, count):
    done = children.run_module("tests.hostile.fuzz_models", kind, seed, count, kernels, seconds=3600)
    assert done.returncode == 0 and not done.stdout, f"{done.stdout} {done.stderr[-2000:]}"
