"""BERT sentence embeddings (all-MiniLM, BGE, E5, ...) from a sentence-transformers folder, in torch alone.

Importing sentence-transformers takes seconds, because it imports transformers, scikit-learn, SciPy and pandas. A folder
needs none of them if it says that it is a BERT with mean or CLS pooling. `load_bert` returns None for every other
folder, and for a setting that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MODULES = {"Transformer": 0, "Pooling": 1, "Normalize": 2}
_WEIGHTS = "model.safetensors"
_POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
_UNUSED = ("pooler.", "embeddings.position_ids")  # weights that no token's vector depends on
_OF_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_KNOWN = {  # the keys that may stand in each file; any other key might change the vectors
    "sentence_bert_config.json": {"max_seq_length", "do_lower_case"},
    "config_sentence_transformers.json": {
        "__version__",
        "prompts",
        "default_prompt_name",
        "similarity_fn_name",
        "model_type",
    },
    "pooling": {"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"},
}


@dataclass(frozen=True)
class BertSettings:
    """What the vectors depend on, apart from weights and tokenizer.

    Attributes:
        layers, heads, eps: of the BERT; `eps` is that of its layer norms.
        positions: rows of its table of positions.
        longest: the folder's own maximum of tokens, or None.
        pooling: "mean" of the tokens' vectors, or that of the first ("cls").
        normalized: whether vectors are scaled to length 1.
        prompts: texts that precede what is embedded, by name.
        default_prompt: name of the prompt for texts without one of their own, or None.
    """

    layers: int
    heads: int
    eps: float
    positions: int
    longest: int | None
    pooling: str
    normalized: bool
    prompts: dict[str, str]
    default_prompt: str | None


class BertEncoder:
    """Computes the vectors of texts, with the interface of a sentence-transformers model that this package uses.

    Attributes:
        settings: see `BertSettings`.
        backend: the tokenizer, a `tokenizers.Tokenizer`.
        max_seq_length: tokens that are read of a text, special ones and the prompt included; None reads all positions.
        prompts, default_prompt_name: as in sentence-transformers.
    """

    def __init__(self, settings: BertSettings, weights: Mapping[str, Any], backend: Any, device: Any) -> None:
        self.settings = settings
        self.backend = backend
        self.max_seq_length = settings.longest
        self.prompts = settings.prompts
        self.default_prompt_name = settings.default_prompt
        self._device = device
        self._weights = {name: weight.to(device) for name, weight in weights.items()}

    def __repr__(self) -> str:
        return f"BertEncoder({self.settings})"

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""
        return self._weights

    def encode_document(
        self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False
    ) -> np.ndarray:
        """Return the vectors (n, dimension) of texts of a document, float32."""
        return self.encode(self._prompted(texts, "document", "passage", "corpus"), batch_size)

    def encode_query(self, texts: Sequence[str], batch_size: int = 32, show_progress_bar: bool = False) -> np.ndarray:
        """Return the vectors (n, dimension) of questions, float32."""
        return self.encode(self._prompted(texts, "query"), batch_size)

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Return the vectors (n, dimension) of texts without a prompt, float32. It reads `max_seq_length` tokens."""
        self.backend.enable_truncation(self.max_seq_length or self.settings.positions)
        rows = [
            self._vectors([encoding.ids for encoding in self.backend.encode_batch(list(texts[start:][:batch_size]))])
            for start in range(0, len(texts), batch_size)
        ]
        width = self._weights["embeddings.word_embeddings.weight"].shape[1]
        return np.concatenate(rows) if rows else np.zeros((0, width), dtype=np.float32)

    def _prompted(self, texts: Sequence[str], *names: str) -> list[str]:
        default = self.prompts.get(self.default_prompt_name or "", "")
        prompt = next((self.prompts[name] for name in names if name in self.prompts), default)
        return [f"{prompt}{text}" for text in texts]

    def _vectors(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        import torch
        from torch.nn.functional import normalize

        lengths = torch.tensor([len(ids) for ids in token_ids], device=self._device)
        padded = torch.zeros(len(token_ids), int(lengths.max()), dtype=torch.long)
        for row, ids in zip(padded, token_ids, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        real = torch.arange(padded.shape[1], device=self._device) < lengths[:, None]  # (n, T)
        with torch.inference_mode():
            tokens = self._tokens(padded.to(self._device), real)  # (n, T, dimension)
            if self.settings.pooling == "cls":
                vectors = tokens[:, 0]
            else:
                vectors = (tokens * real[..., None]).sum(dim=1) / lengths[:, None]
            if self.settings.normalized:
                vectors = normalize(vectors)
            return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def _tokens(self, token_ids: Any, real: Any) -> Any:
        """Return the vectors (n, T, dimension) of tokens (n, T) behind the last layer. `real` is False for padding."""
        from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

        weights, eps, heads = self._weights, self.settings.eps, self.settings.heads

        def norm(x: Any, name: str) -> Any:
            return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

        def product(x: Any, name: str) -> Any:
            return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

        x = weights["embeddings.word_embeddings.weight"][token_ids]  # (n, T, E)
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = norm(x + weights["embeddings.position_embeddings.weight"][: x.shape[1]], "embeddings.LayerNorm")
        mask = real[:, None, None]  # (n, 1, 1, T)
        for index in range(self.settings.layers):
            layer = f"encoder.layer.{index}"
            query, key, value = (
                product(x, f"{layer}.attention.self.{part}").unflatten(-1, (heads, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            )  # (n, heads, T, E / heads) each
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
            attended = product(mixed, f"{layer}.attention.output.dense")
            x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
            wide = gelu(product(x, f"{layer}.intermediate.dense"))
            x = norm(x + product(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return x


def load_bert(source: str, device: str | None) -> BertEncoder | None:
    """Return the model of a folder, or None if the folder holds anything but a BERT whose every setting is known.

    The weights are mapped from their file, not read.

    Args:
        source: the folder.
        device: a torch device; None takes an accelerator if there is one.
    """
    folder = Path(source)
    try:
        settings = _settings(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # sentence-transformers says what is wrong
        return None
    if settings is None:
        return None
    import torch
    from safetensors import safe_open
    from tokenizers import Tokenizer

    # Otherwise a PyTorch that was built for CUDA names it on a machine that has no GPU.
    here = torch.accelerator.current_accelerator(check_available=True)
    on_device = torch.device(device) if device is not None else here
    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as file:
            names = [name for name in file.keys() if not name.startswith(_UNUSED)]  # noqa: SIM118 (no mapping)
            weights = {name: file.get_tensor(name) for name in names}
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # both libraries may raise anything for a bad file; sentence-transformers says what is wrong
        return None
    if set(weights) != _names(settings.layers) or any(each.dtype != torch.float32 for each in weights.values()):
        return None
    if len(weights["embeddings.position_embeddings.weight"]) != settings.positions:
        return None
    backend.no_padding()
    return BertEncoder(settings, weights, backend, on_device or torch.device("cpu"))


def _names(layers: int) -> set[str]:
    parts = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    named = ["embeddings.LayerNorm", *(f"encoder.layer.{n}.{part}" for n in range(layers) for part in _OF_LAYER)]
    return {*parts, *(f"{name}.{kind}" for name in named for kind in ("weight", "bias"))}


def _settings(folder: Path) -> BertSettings | None:
    modules = json.loads((folder / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    library = all(module["type"].startswith("sentence_transformers.") for module in modules)
    if not library or kinds not in (["Transformer", "Pooling"], list(_MODULES)) or modules[0]["path"]:
        return None
    bert = json.loads((folder / "config.json").read_text())
    own = _known(folder / "sentence_bert_config.json", "sentence_bert_config.json")
    prompts = _known(folder / "config_sentence_transformers.json", "config_sentence_transformers.json")
    pooling = _pooling(json.loads((folder / modules[1]["path"] / "config.json").read_text()))
    if own is None or prompts is None or pooling is None or not _is_plain(bert) or own.get("do_lower_case"):
        return None
    return BertSettings(
        layers=int(bert["num_hidden_layers"]),
        heads=int(bert["num_attention_heads"]),
        eps=float(bert["layer_norm_eps"]),
        positions=int(bert["max_position_embeddings"]),
        longest=own.get("max_seq_length"),
        pooling=pooling,
        normalized="Normalize" in kinds,
        prompts={"query": "", "document": ""} | dict(prompts.get("prompts") or {}),
        default_prompt=prompts.get("default_prompt_name"),
    )


def _is_plain(bert: Mapping[str, Any]) -> bool:
    """Return whether a configuration is that of the BERT which `BertEncoder` computes."""
    return (
        bert["model_type"] == "bert"
        and bert["hidden_act"] == "gelu"
        and bert.get("position_embedding_type", "absolute") == "absolute"
        and bert.get("dtype", bert.get("torch_dtype", "float32")) in (None, "float32")
        and not any(bert.get(key) for key in ("auto_map", "is_decoder", "add_cross_attention", "quantization_config"))
    )


def _pooling(config: dict[str, Any]) -> str | None:
    """Return "mean" or "cls"; None for any other pooling."""
    modes = {key for key, value in config.items() if key.startswith("pooling_mode_") and value}
    others = {key for key in config if not key.startswith("pooling_mode_")} - _KNOWN["pooling"]
    if others or not config.get("include_prompt", True):
        return None
    if "pooling_mode" in config:
        return config["pooling_mode"] if config["pooling_mode"] in _POOLINGS else None
    return next((name for name, key in _POOLINGS.items() if modes == {key}), None)


def _known(path: Path, kind: str) -> dict[str, Any] | None:
    """Return the settings of a file; None if one of them is not known here. A file that is absent sets nothing."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    return found if set(found) <= _KNOWN[kind] else None
