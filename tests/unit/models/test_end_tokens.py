"""Answers end where a turn ends, whatever file or template says so."""

import json

import pytest
from tokenizers import AddedToken

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.models.loader import load, wrap
from tests.toys.gguf_file import write_gguf
from tests.toys.models import EOS_ID, IM_END_ID, IM_START_ID, byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("home")

PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


def template(end, between=""):
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}" + end + "\n" + between + "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def quiet(**config):
    """A model whose own settings name only the end of a text."""
    model = tiny_model("llama", 1, eos_token_id=EOS_ID, **config)
    model.generation_config.eos_token_id = EOS_ID
    return model


def ends(tokenizer, model=None):
    model = model or quiet(vocab_size=len(tokenizer))
    found = wrap(model, tokenizer).vocabulary.eos_token_ids
    return {str(tokenizer.convert_ids_to_tokens(index)) for index in found}


@pytest.mark.parametrize(
    "end",
    [
        "<end_of_turn>",
        "<|end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|END_OF_TURN_TOKEN|>",
        "<turn|>",
        "<|endoftext|>",
        "</s>",
    ]
    + ["<|call|>", "<|calls|>", "<|flush|>", "<eos>", "<EOT>", "<|tool_response>", "<|fim_pad|>", "<|file_sep|>"],
)
@pytest.mark.parametrize("chat_template", [PLAIN, None])
def test_control_tokens_that_are_known_to_end_turns_end_answers(end, chat_template):
    tokenizer = byte_tokenizer(extra_tokens=[end], chat_template=chat_template)
    assert end in ends(tokenizer)


@pytest.mark.parametrize("end", ["<fin>", "</answer-of-acme>", "[/TURN]", "  <fin>", "\n<fin>"])
def test_what_the_template_writes_behind_an_answer_ends_it(end):
    token = end.strip()
    assert token in ends(byte_tokenizer(extra_tokens=[token], chat_template=template(end)))
    assert token not in ends(byte_tokenizer(extra_tokens=[token], chat_template=template("")))


def test_the_next_turns_opening_ends_an_answer_where_nothing_else_does():
    """As GLM's templates do: the user's token is an eos there."""
    assert "<|im_start|>" in ends(byte_tokenizer(chat_template=template("")))
    assert "<|im_start|>" not in ends(byte_tokenizer(chat_template=template("<|im_end|>")))


def test_a_template_that_refuses_an_answer_at_the_end_is_asked_otherwise():
    refusing = "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}" + template("<fin>")
    assert "<fin>" in ends(byte_tokenizer(extra_tokens=["<fin>"], chat_template=refusing))


def test_a_token_between_channels_ends_nothing():
    channels = template("<|return|>") + "{# <|channel|> #}"
    found = ends(byte_tokenizer(extra_tokens=["<|end|>", "<|return|>", "<|channel|>"], chat_template=channels))
    assert "<|return|>" in found and "<|end|>" not in found


@pytest.mark.parametrize("others", [["<|return|>", "<|call|>"], ["<|calls|>", "<|flush|>"]])
def test_a_token_between_channels_ends_nothing_whatever_the_template(others):
    """As of GPT-OSS and Solar Open, which have channels."""
    found = ends(byte_tokenizer(extra_tokens=["<|end|>", *others], chat_template=PLAIN))
    assert found >= set(others) and "<|end|>" not in found


def test_a_tag_of_html_is_no_end():
    """Gemma's vocabulary has "</s>", which strikes nothing out; as a control token it ends a text."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("</s>", special=False)])
    assert "</s>" not in ends(tokenizer)


def test_the_settings_of_model_and_tokenizer_all_count():
    model = quiet()
    model.generation_config.eos_token_id = [7, EOS_ID]
    model.config.eos_token_id = [9]
    assert wrap(model, byte_tokenizer()).vocabulary.eos_token_ids == {7, 9, EOS_ID, IM_END_ID}


def test_the_default_of_a_class_is_no_end_where_it_is_a_letter():
    """LlamaConfig says 2 where a configuration says nothing; here that is a quotation mark."""
    from transformers import LlamaConfig

    default = LlamaConfig().eos_token_id
    assert default == 2
    model = tiny_model("llama", 1, eos_token_id=default)
    model.generation_config.eos_token_id = None
    assert wrap(model, byte_tokenizer()).vocabulary.eos_token_ids == {EOS_ID, IM_END_ID}


def test_a_model_without_an_end_of_its_own_loads():
    model = tiny_model("llama", 1, eos_token_id=None)
    del model.config.eos_token_id
    model.generation_config.eos_token_id = None
    assert EOS_ID in wrap(model, byte_tokenizer()).vocabulary.eos_token_ids


def test_ids_that_are_none_do_not_count():
    model = quiet()
    model.generation_config.eos_token_id = [EOS_ID, -1, 10**9]
    assert wrap(model, byte_tokenizer()).vocabulary.eos_token_ids == {EOS_ID, IM_END_ID}


@pytest.mark.parametrize(
    "key", ["eot_token_id", "eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"]
)
def test_a_gguf_file_says_what_ends_a_turn(tmp_path, key):
    """And loads so from its kept copy, too."""
    merges = (("t", "h"),)
    tokenizer = byte_tokenizer(merges=merges, chat_template=None)
    path = tmp_path / "tiny.gguf"
    model = tiny_model("qwen2", 1, vocab_size=len(tokenizer))
    write_gguf(path, model, tokenizer, merges, **{f"tokenizer__ggml__{key}": IM_START_ID})
    for _ in range(2):
        assert load(path, dtype="float32").vocabulary.eos_token_ids == {EOS_ID, IM_END_ID, IM_START_ID}


def test_a_folder_whose_files_name_the_end_of_texts_only(tmp_path):
    """The kind of Gemma 3 and Phi-3 folders with an old generation_config.json."""
    tokenizer = byte_tokenizer(extra_tokens=["<end_of_turn>"], chat_template=template("<end_of_turn>"))
    quiet(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS_ID}))
    found = load(tmp_path, dtype="float32").vocabulary.eos_token_ids
    assert found >= {EOS_ID, tokenizer.convert_tokens_to_ids("<end_of_turn>")}


@pytest.mark.parametrize("special", [True, False])
def test_generation_stops_at_the_end_of_a_turn_and_the_text_has_nothing_of_it(special):
    """Whether the tokenizer calls the token special or not."""
    tokenizer = byte_tokenizer(chat_template=template("<fin>"))
    tokenizer.add_tokens([AddedToken("<fin>", special=special, normalized=False)], special_tokens=special)
    end = tokenizer.convert_tokens_to_ids("<fin>")
    model = quiet(vocab_size=len(tokenizer), tie_word_embeddings=False)
    engine = RapidEngine.from_models(model, tokenizer)
    forward = engine.target.forward

    def scripted(wanted):
        (rows,) = wanted
        logits = forward(wanted)[0].clone()
        for row in range(rows.keep):
            position = rows.cache.length - rows.keep + row + 1
            logits[row] = 0.0
            logits[row, end if position >= prompt + 5 else ord("a") - ord("!")] = 9.0
        return [logits]

    engine.target.forward = scripted
    prompt = engine.count_tokens("hello")
    with engine:
        answer = engine.generate("hello")
    assert answer.finish_reason == "eos" and answer.token_ids[-1] == end and len(answer.token_ids) == 6
    assert "<fin>" not in answer.text and answer.text == engine.vocabulary.decode(answer.token_ids[:-1]) != ""


def test_a_token_that_ends_a_part_of_an_answer_does_not_end_it():
    """Kimi-K3 closes its thinking with the token that also begins the end of the answer."""
    close = template("<|close|>response<|end_of_msg|>").replace(
        "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}think<|close|>think{% endif %}{{ m['content'] }}"
    )
    found = ends(byte_tokenizer(extra_tokens=["<|close|>", "<|end_of_msg|>"], chat_template=close))
    assert "<|end_of_msg|>" in found and "<|close|>" not in found


@pytest.mark.parametrize("real", [("<|return|>", "<|call|>"), ("<|flush|>", "<|calls|>")])
def test_the_end_of_a_part_beside_the_ends_of_answers(real):
    """As Solar Open's tokenizer has them; its template writes <|end|> behind thinking and behind answers."""
    tokenizer = byte_tokenizer(extra_tokens=["<|end|>", *real], chat_template=template("<|end|>"))
    assert {*real} <= ends(tokenizer) and "<|end|>" not in ends(tokenizer)
    assert "<|end|>" in ends(byte_tokenizer(extra_tokens=["<|end|>"], chat_template=template("<|end|>")))
