"""Errors for GGUF files that do not hold a runnable model. Each kind of content has its own message."""

from __future__ import annotations

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.gguf.description import READ, architecture_of
from rapid_integrations.models.gguf.header import GgufHeader

_VECTORS = ("bert", "jina-", "t5encoder", "gemma-embedding", "eurobert")
_PICTURES = frozenset(
    {"flux", "sd1", "sdxl", "sd3", "aura", "hidream", "wan", "ltxv", "cosmos", "hyvid", "lumina2", "qwen_image", "pig"}
)
_SPEECH = ("whisper", "wavtokenizer", "parakeet")
_RECURRENT = (
    "mamba",
    "rwkv",
    "jamba",
    "lfm2",
    "qwen35",
    "qwen3next",
    "falcon-h1",
    "nemotron_h",
    "plamo",
    "kimi-linear",
)
# Of these, those that are read.
_RECURRENT_READ = (
    *("mamba", "lfm2", "qwen3next", "qwen35", "qwen35moe", "lfm2moe", "falcon-h1", "nemotron_h", "nemotron_h_moe"),
    *("kimi-linear", "jamba"),
)
_DIFFUSED = ("dream", "llada")
_ALIBI = "it has no rotary positions but ALiBi, a bias that grows with the distance, which the kernels lack"
_LACKING = {
    **dict.fromkeys(("mpt", "refact", "jais"), _ALIBI),
}
"""What keeps a family from being read, if it is more than names."""


def refuse_gguf(header: GgufHeader) -> None:
    """Refuse a file that is not a causal LM, or whose architecture transformers cannot read.

    Raises:
        ModelLoadError: the message says what the file is, and gives the way out.
    """
    path, architecture = header.path, header.architecture
    kind = header.metadata.get("general.type", "model")
    if kind == "adapter" or any(key.startswith("adapter.") for key in header.metadata):
        raise ModelLoadError(
            f"{path} is an adapter (LoRA), not a whole model. Merge it into its base model (llama.cpp's "
            "llama-export-lora does it) and give the result"
        )
    if architecture == "clip" or kind in ("mmproj", "clip"):
        raise ModelLoadError(
            f"{path} is the vision part (mmproj) of a multimodal model. Give the GGUF file of its language model; "
            "pictures are not read"
        )
    if kind == "imatrix" or architecture in ("imatrix", "controlvector"):
        raise ModelLoadError(f"{path} holds {architecture or kind} data, not a model. Give the model's own GGUF file")
    if architecture in _PICTURES:
        raise UnsupportedModelError(f"{path} is a model that makes pictures or films ({architecture}), not text")
    if architecture.startswith(_SPEECH):
        raise UnsupportedModelError(f"{path} is a model for speech ({architecture}), not for text")
    if architecture.startswith(_DIFFUSED):
        raise UnsupportedModelError(
            f"{path} is a diffusion language model ({architecture}): it does not write from left to right"
        )
    pooling = header.metadata.get(f"{architecture}.pooling_type")
    if "bert" in architecture or architecture.startswith(_VECTORS) or (type(pooling) is int and pooling > 0):
        raise UnsupportedModelError(
            f"{path} is an embedding model or reranker ({architecture}): it gives vectors and writes no text. Give a "
            "causal LM; an embedder is given as a folder (embedder=, --embedder)"
        )
    if architecture == "t5":
        raise UnsupportedModelError(f"{path} is an encoder-decoder model (t5); a decoder-only causal LM is needed")
    if architecture.startswith(_RECURRENT) and architecture not in _RECURRENT_READ:
        raise UnsupportedModelError(
            f"{path} has layers with recurrent state ({architecture}), whose tensors have other forms in GGUF files "
            f"than in models; of such files only those of {', '.join(_RECURRENT_READ)} are read. Take the model's "
            "safetensors; `rapid models check` says whether its family runs"
        )
    if not architecture:
        raise ModelLoadError(f"{path} could not be loaded: its metadata names no architecture; fetch it again")
    if not header.tensors:
        raise ModelLoadError(f"{path} could not be loaded: it has no weights (a vocabulary only)")
    own = architecture_of(header)
    if own is None or not own.long_rope:
        _refuse_long_rope(header)
    if architecture not in (readable := _by_transformers() | READ):
        why = f": {_LACKING[architecture]}" if architecture in _LACKING else ""
        raise UnsupportedModelError(
            f"{path} is a {architecture!r} model{why}; GGUF files are read of {', '.join(sorted(readable))}. Take "
            "the model's safetensors; `rapid models check` says whether its family runs"
        )


def refuse_unread(header: GgufHeader) -> None:
    """Refuse a file that only `description` could read, and has not.

    Raises:
        UnsupportedModelError: transformers reads no GGUF files of its architecture, or not all that it says.
    """
    _refuse_long_rope(header)
    architecture = header.architecture
    if architecture == "jamba" and header.metadata.get("jamba.expert_count", 0) > 1:
        raise UnsupportedModelError(
            f"{header.path} is a model of Jamba with experts, of which only those without are read from GGUF files. "
            "Take the model's safetensors"
        )
    if architecture not in _by_transformers():
        raise UnsupportedModelError(
            f"{header.path} is a {architecture!r} model that says something in its metadata that is not known here, or "
            "whose tensors are not those of this family: some may be missing. Take the model's safetensors, or convert "
            "it again with llama.cpp"
        )


def _refuse_long_rope(header: GgufHeader) -> None:
    if name := next((each.name for each in header.tensors if each.name.startswith("rope_factors_")), None):
        raise UnsupportedModelError(
            f"{header.path} has rotary frequencies that follow the length of the text (longrope: {name}), which "
            "transformers does not read from GGUF files"
        )


def _by_transformers() -> frozenset[str]:
    """Return the architectures of which transformers reads GGUF files, spelt as there."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    spelt = (name.replace("_moe", "moe").replace("_", "-") for name in GGUF_SUPPORTED_ARCHITECTURES)
    # Of LFM2 it overlooks windows, and layers that see what comes behind a token. Of Gemma 4 it overlooks experts,
    # inputs of every layer, whose keys a layer reads, and angles. Of Mamba it overlooks the norms of Falcon-Mamba.
    return frozenset(spelt) - {"general", "tokenizer", "t5", "umt5", "lfm2", "gemma4", "mamba"}
