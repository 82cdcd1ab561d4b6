"""A small random model of BGE-M3's architecture on disk: XLM-RoBERTa, its two further heads, weights as `.bin`."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

POSITIONS = 66  # 64 of them usable: counting starts behind the padding index
WORDS = "the cat sat on a mat dog ran far away understand".split()


def save_tiny_bge(folder: Path) -> XLMRobertaModel:
    """Write the folder as its authors publish it, and return the model."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(token, 0.0) for token in special]
    pieces += [("▁" + word, -2.0) for word in WORDS]
    pieces += [(letter, -8.0) for letter in "▁abcdefghijklmnopqrstuvwxyz.?"]
    backend = Tokenizer(models.Unigram(pieces, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = XLMRobertaConfig(
        vocab_size=len(pieces), max_position_embeddings=POSITIONS, type_vocab_size=1, initializer_range=0.5, **sizes
    )
    model = XLMRobertaModel(config).eval()
    config.architectures = ["XLMRobertaModel"]
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save(torch.nn.Linear(16, 16).state_dict(), folder / "colbert_linear.pt")
    torch.save(torch.nn.Linear(16, 1).state_dict(), folder / "sparse_linear.pt")
    return model
