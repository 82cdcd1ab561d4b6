"""A tiny model as a GGUF file."""

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

from tests.toys.models import BOS_ID, EOS_ID, SPECIAL_TOKENS

_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_IN_A_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path, model, tokenizer, merges=(), *, parts=1, leave_out=(), formats=None, **metadata):
    """Write a model of the Llama family and its tokenizer (`byte_tokenizer(merges=merges)`) to `path`.

    `parts`: write so many files, as gguf-split does; returns their paths. `leave_out`: names of tensors. `formats`: for
    a matrix's name the blocks in which it is written (`GGMLQuantizationType` or None); the model then gets the weights
    that they stand for. Other tensors are float32. `metadata`: further keys, "__" for dots
    ("tokenizer__ggml__eot_token_id"); None removes one that is written otherwise.
    """
    config = model.config
    names = dict(_OUTER)
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in _IN_A_LAYER.items()}
    tensors = {}
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if f"{names[stem]}.{kind}" not in leave_out:
            tensors[f"{names[stem]}.{kind}"] = _as_in_files(config, names[stem], tensor).numpy()
    raw = {}
    if formats is not None:
        for name, tensor in model.state_dict().items():
            stem, _, kind = name.rpartition(".")
            theirs = f"{names[stem]}.{kind}"
            if tensor.ndim == 2 and theirs in tensors and (form := formats(theirs)) is not None:
                raw[theirs] = blocks(tensors[theirs], form), form
                weights = torch.from_numpy(dequantize(*raw[theirs]))
                tensor.copy_(_as_in_models(config, names[stem], weights))
    held = list(tensors)
    shares = [held[part::parts] for part in range(parts)]
    paths = [path]
    if parts > 1:
        paths = [path.with_name(f"{path.stem}-{part + 1:05d}-of-{parts:05d}.gguf") for part in range(parts)]
    for part, (target, share) in enumerate(zip(paths, shares, strict=True)):
        writer = gguf.GGUFWriter(str(target), config.model_type)
        if part == 0:
            _describe(writer, config, tokenizer, merges, metadata)
        if parts > 1:
            writer.add_uint16("split.no", part)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(held))
        for name in share:
            if name in raw:
                writer.add_tensor(name, raw[name][0], raw_dtype=raw[name][1])
            else:
                writer.add_tensor(name, tensors[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def write_tensors(path, architecture, tensors, tokenizer, merges, **metadata):
    """Write tensors (by name, float32), a tokenizer and keys of an architecture, "__" for dots ("ssm__state_size")."""
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in metadata.items():
        name = f"{architecture}.{key.replace('__', '.')}"
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(name, value)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.detach().contiguous().numpy())
    write_out(writer)
    return path


def change_metadata(writer, prefix, metadata):
    """Write further metadata, or other values; None takes a key out.

    `metadata`: by key, with "__" for "."; keys other than those of the tokenizer and of an
    activation are those of the architecture `prefix`.
    """
    for key, value in metadata.items():
        name = key.replace("__", ".")
        whole = name if name.startswith(("tokenizer.", "xielu.")) else f"{prefix}.{name}"
        writer.kv_data[0].pop(whole, None)
        if isinstance(value, list):
            writer.add_array(whole, value)
        elif value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
            add[type(value)](whole, value)


def named(settings):
    """Return a name of a test's settings, in which functions have their names and no addresses."""
    if not isinstance(settings, dict):
        return getattr(settings, "__name__", str(settings))
    return "-".join(f"{key}={named(value)}" for key, value in settings.items()) or "plain"


def write_out(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def blocks(weights, form):
    """Return the blocks of a matrix, (O, bytes of a row): rounded by the gguf package, or random ones of its size.

    The package does not write the "K" formats.
    """
    if not form.name.endswith("_K"):
        return quantize(weights, form)
    random = np.random.default_rng(weights.size + int(form))
    columns, size = gguf.GGML_QUANT_SIZES[form]
    count = weights.size // columns
    raw = random.integers(0, 256, (count, size), dtype=np.uint8)
    largest = {"Q4_K": 63 * 15, "Q5_K": 63 * 31, "Q6_K": 127 * 31}[form.name]  # of the integers that a scale multiplies
    scales = (random.uniform(0.2, 1.0, (count, 2)) * 4 * weights.std() / largest).astype(np.float16)
    scales[:, 1] *= largest / 63 / 3  # minima, so that weights have both signs
    if form.name == "Q6_K":
        raw[:, -2:] = scales[:, :1].copy().view(np.uint8)
    else:
        raw[:, :4] = scales.view(np.uint8)
    return raw.reshape(len(weights), -1)


def _as_in_files(config, name, tensor):
    heads = _heads(config, name)
    return tensor if heads is None else in_files_order(tensor, heads)


def _as_in_models(config, name, tensor):
    heads = _heads(config, name)
    return tensor if heads is None else in_models_order(tensor, heads)


def _heads(config, name):
    if config.model_type != "llama" or not name.endswith(("attn_q", "attn_k")):
        return None
    return config.num_attention_heads if name.endswith("attn_q") else config.num_key_value_heads


def describe_tokenizer(writer, config, tokenizer, merges):
    """Write the tokenizer and the chat template."""
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert len(tokens) == config.vocab_size
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    control = {*SPECIAL_TOKENS, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    writer.add_token_types([kinds.CONTROL if token in control else kinds.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def in_files_order(rows, heads):
    """Return rows of queries or keys as llama.cpp's converter orders them: each number beside the one it turns with."""
    own = rows.view(heads, 2, -1, *rows.shape[1:])
    return own.transpose(1, 2).reshape(rows.shape).contiguous()


def in_models_order(rows, heads):
    """Undo `in_files_order`."""
    own = rows.view(heads, -1, 2, *rows.shape[1:])
    return own.transpose(1, 2).reshape(rows.shape)


def describe_sizes(writer, config):
    """Write the sizes that every family has."""
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if hasattr(config, "num_key_value_heads"):
        writer.add_head_count_kv(config.num_key_value_heads)


def _describe(writer, config, tokenizer, merges, metadata):
    describe_sizes(writer, config)
    if config.head_dim != config.hidden_size // config.num_attention_heads:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    describe_tokenizer(writer, config, tokenizer, merges)
    for key, value in metadata.items():
        name = key.replace("__", ".")
        writer.kv_data[0].pop(name, None)
        if value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
            add(name, value)
