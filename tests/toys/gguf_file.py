"""A tiny model as a GGUF file."""

import gguf

from tests.toys.models import BOS_ID, EOS_ID, SPECIAL_TOKENS

_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_IN_A_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path, model, tokenizer, merges=(), *, parts=1, leave_out=(), **metadata):
    """Write a Qwen2 model and its tokenizer (`byte_tokenizer(merges=merges)`) to `path`, weights in float32.

    `parts`: write so many files, as gguf-split does; returns their paths. `leave_out`: names of tensors. `metadata`:
    further keys, "__" for dots ("tokenizer__ggml__eot_token_id"); None removes one that is written otherwise.
    """
    config = model.config
    names = dict(_OUTER)
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in _IN_A_LAYER.items()}
    tensors = {}
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        if f"{names[stem]}.{kind}" not in leave_out:
            tensors[f"{names[stem]}.{kind}"] = tensor.numpy()
    held = list(tensors)
    shares = [held[part::parts] for part in range(parts)]
    paths = [path]
    if parts > 1:
        paths = [path.with_name(f"{path.stem}-{part + 1:05d}-of-{parts:05d}.gguf") for part in range(parts)]
    for part, (target, share) in enumerate(zip(paths, shares, strict=True)):
        writer = gguf.GGUFWriter(str(target), "qwen2")
        if part == 0:
            _describe(writer, config, tokenizer, merges, metadata)
        if parts > 1:
            writer.add_uint16("split.no", part)
            writer.add_uint16("split.count", parts)
            writer.add_int32("split.tensors.count", len(held))
        for name in share:
            writer.add_tensor(name, tensors[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def _describe(writer, config, tokenizer, merges, metadata):
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert len(tokens) == config.vocab_size
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    control = {*SPECIAL_TOKENS, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    writer.add_token_types([kinds.CONTROL if token in control else kinds.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(BOS_ID)
    writer.add_eos_token_id(EOS_ID)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    for key, value in metadata.items():
        name = key.replace("__", ".")
        writer.kv_data[0].pop(name, None)
        if value is not None:
            add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
            add(name, value)
