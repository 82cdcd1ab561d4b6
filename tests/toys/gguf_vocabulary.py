"""A GGUF file with a tokenizer and nothing else."""

import gguf
from tokenizers import pre_tokenizers

from rapid_integrations.models.gguf.header import read_header

BYTES = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
FALLBACKS = tuple(f"<0x{byte:02X}>" for byte in range(256))
KINDS = gguf.TokenType


def write_vocabulary(
    folder,
    tokens,
    *,
    model="gpt2",
    pre=None,
    architecture="llama",
    kinds=None,
    merges=None,
    scores=None,
    template=None,
    **said,
):
    """Write the file; return its header.

    `kinds`: of tokens that are not ordinary, by the token; () for a file without kinds. `said`: further keys of
    "tokenizer.ggml." ("eos_token_id").
    """
    path = folder / "a.gguf"
    writer = gguf.GGUFWriter(str(path), architecture)
    if model is not None:
        writer.add_tokenizer_model(model)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(tokens))
    if kinds != ():
        fallbacks = dict.fromkeys(FALLBACKS, KINDS.BYTE)
        writer.add_token_types([(fallbacks | (kinds or {})).get(token, KINDS.NORMAL) for token in tokens])
    if merges is not None:
        writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in merges])
    if scores is not None:
        writer.add_token_scores(scores)
    if template is not None:
        writer.add_chat_template(template)
    for key, value in said.items():
        (writer.add_bool if isinstance(value, bool) else writer.add_uint32)(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


def pieces(tokenizer, text):
    """Return the texts of the tokens of a text, nothing put around it."""
    return tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
