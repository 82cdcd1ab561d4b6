"""The families of models, and how each is computed: what the code says of a configuration of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docs.reference.tables import Row, table

TEXT = """# Model families

`make docs-reference` generates this page from the descriptions in `rapid_integrations/models/families`, and a test
keeps it up to date. `rapid models check NAME` says the same of one model (a folder, GGUF file or name), and reads no
weights.

- **kernels**: this package's kernels compute it, in bfloat16 on a processor. Its weights may be int8 or int4, and
  several texts share a pass. PyTorch's operators compute it from the same description in other dtypes and on other
  devices, and if its heads or matrices have widths that the kernels do not serve.
- **operators**: PyTorch's operators compute it from its description in every dtype. Its weights may be int8 or int4,
  and several texts share a pass. The reason says what the kernels lack for it.
- **transformers**: its own forward pass runs on this package's cache and attention, without int8 or int4, one text
  after another. A family that is not in this table runs so, if the comparison below finds no difference.
- **refused**: it cannot be run exactly yet. The reason is an excerpt of the error.

When a model is loaded, a short pass is compared with the model's own eager one. A model that differs is refused, and
does not give wrong answers. Greedy output of every family that runs equals transformers' `generate`
(`tests/laws/test_described_families.py`, `tests/laws/test_recurrent_families.py`, `tests/laws/test_every_family.py`).
[Add a model family](add-a-model-family.md) says how one is described.

Phi-3.5, Phi-4-mini and others whose rotations follow the length ("longrope") choose between their short and their long
angles once for a text. The long ones serve a request whose prompt, output and drafts may exceed the original length
together. So its keys never have to change, and rows are shared only among texts with the same angles.
Phi-3.5-MoE has its short angles for texts of any length, as transformers has it.

Zamba2's shared blocks are held once, and what a layer has of its own beside them (adapters) keeps the model's dtype.
The learned positions of GPT-2, OPT and GPT-BigCode end with their table. OPT-350M, whose norms stand behind what is
added, runs in transformers' forward. So do JetMoE, Zamba 1 and BitNet
([why](log/2026-11-30-further-families.md)). Falcon with rotations is computed by its description alone, as its
attention in transformers cannot be replaced: load it by its name or folder. With ALiBi it is refused. Apertus 1.5 reads
tokens of pictures and sounds only as text has them.

Multi-head latent attention (DeepSeek V2 and V3, GLM-4.7-Flash, Kimi K2.5 and Linear, MiniCPM3, Mistral 4, Youtu, A.X
K1) is cached as latents: a token takes `kv_lora_rank + qk_rope_head_dim` numbers a layer, and not the keys and values
of all heads. Few tokens attend to the latents themselves. For prompts, the keys and values of the heads are computed
anew, by PyTorch's operators, which compute all of it on GPUs. In bfloat16 a row of a prompt may differ in its last bits
with the piece in which it is read. `kv_dtype="int8"` serves such models. Longcat-Flash (two attentions a layer) runs in
transformers' forward.

Indexed attention (DeepSeek V3.2, GLM-5) is latent attention of which a row sees the `index_topk` keys that a small
attention of its own, the indexer, gives the best scores: all, as long as there are no more. The indexers' keys are
cached beside the latents (`index_head_dim` numbers a layer that has one), and are forgotten, shared, stored in eight
bits and kept on disk with them. In a tree of drafts a row chooses among its own ancestors. Steps run on the kernels,
and prompts are read by PyTorch's operators, as of other latent attention; both attend to the keys that were chosen
alone. On the kernels a row makes the same choice alone, among drafts and in company. A row of a prompt may choose
either of two keys with nearly equal scores, with the piece in which it is read. Of keys with equal scores those are
taken that transformers takes where it reads the text token by token; where it reads several at once, that depends on
how many. Layers that share the choice of an earlier one (`indexer_types`) are computed so. Layers cannot be skipped,
and keys not be moved (`chunk_cache="target"`), nor does a model object run that others use, too: load it by its name
or folder. When a model is loaded, its indexers are compared, too, with fewer keys than the text has. What else
chooses keys is refused: with pooled keys (GLM-5.3-Flash, Qwen4), with sinks and several streams of states (Hunyuan
V4), or beside windows, with gates of heads (dots3-note). DeepSeek V4 would need caches of compressed keys, whose last
entry changes as a text grows, and hyper-connections.

Recurrent layers (gated delta nets, Mamba, lightning attention) and short convolutions keep a state in place of keys and
values. It is kept every 512 to 4,096 tokens of a prompt, where other prompts with the same beginning go on.

- **Described families** (Qwen3-Next, Qwen3.5, OLMo hybrid, Kimi Linear, Granite 4, Falcon-H1, Nemotron-H, Bamba,
  Zamba2, Jamba, Mamba, Falcon-Mamba, Mamba2, RecurrentGemma, LFM2 and LFM3, Lara-Mini, MiniMax-01): what the newest
  tokens add to a state is recorded, so a rejected draft is forgotten, and nothing is read twice. Their prefixes are
  kept on disk, too. Drafts are chains, not trees, and no layer is skipped. Steps of Nemotron-H and Zamba2 are at least
  `time_step_min`, as transformers has it where it reads several tokens; for single ones, it leaves that out. Nemotron 3
  with experts that read latents (`moe_latent_size`) runs in transformers' forward. Mamba, Falcon-Mamba and Mamba2 keep
  nothing but a state, whatever the length of a text.
- **Others**: the state at the start of a round is kept, and behind a rejected draft the accepted tokens are read once
  more. transformers continues some of them (Zamba) with single tokens only: their prompts are slow behind the first
  1,024 tokens. Their prefixes are kept in memory, and not on disk.

{families}
"""

# Sizes of published models, if the defaults of a configuration are those of none.
PUBLISHED: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("arcee", "glm4_moe", "hunyuan_v1_dense", "ministral"), {"head_dim": 128}),
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "nemotron": {"hidden_size": 3072, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128},
    "dots1": {"hidden_size": 4096, "n_shared_experts": 2, "n_routed_experts": 128, "num_experts_per_tok": 6},
    "hunyuan_v1_moe": {"num_experts": 64, "moe_topk": 8, "intermediate_size": 3072, "head_dim": 128},
    "deepseek_v2": {"moe_intermediate_size": 1408},
    "falcon_h1": {"hidden_size": 1024, "num_attention_heads": 16, "mamba_d_ssm": 1536, "mamba_n_heads": 24},
    "granitemoehybrid": {"layer_types": ["linear_attention"] * 5 + ["full_attention"] + ["linear_attention"] * 26},
    "nemotron_h": {"moe_intermediate_size": 1856, "moe_shared_expert_intermediate_size": 3712},
    "stablelm": {"hidden_size": 2048},
    "zamba2": {"n_mamba_heads": 80, "use_shared_attention_adapter": True},
    **dict.fromkeys(("lfm2", "lfm2_moe"), {"layer_types": ["conv", "full_attention"] * 16, "hidden_size": 2048}),
    "phi3": {
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_parameters": {
            **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096},
            **{"short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "factor": 32.0},
        },
    },
}
# Families of the table beside those that are described.
FURTHER = (
    *("bloom", "deepseek_v4", "dots3_note_text", "hy_v4", "mpt", "rwkv"),
    *("bailing_hybrid", "bitnet", "jetmoe", "longcat_flash", "zamba", "zaya"),
)


def section() -> str:
    """Return the beginning of the page: what is said of families, and the table of them. It imports all of them."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CLASSES

    from rapid_integrations.models.families import FAMILIES
    from rapid_integrations.models.kinds_of_run import kind_of
    from rapid_integrations.models.model_class import class_for

    names = dict(_transformers_names())
    described = sorted(names[each] for each in FAMILIES if each in names)
    found: dict[str, list[Row]] = {"kernels": [], "operators": [], "transformers": [], "refused": []}
    for name in (*described, *sorted(FURTHER)):
        config = CONFIG_MAPPING[name](**PUBLISHED.get(name, {}))
        kind = kind_of(config, CLASSES.get(type(config), None) or class_for(name, config)[1])
        reason = kind.reason if kind.how in ("refused", "operators") else ""
        short = reason.removeprefix(f"{kind.architecture} ").removeprefix(f"{kind.architecture}: ").partition("; ")[0]
        found[kind.how].append((f"`{name}`", f"`{kind.architecture}`", kind.how, short))
    rows = [row for kind in found.values() for row in kind]
    return TEXT.format(families=table(("family", "class", "how", "reason"), rows))


def _transformers_names() -> Iterator[tuple[str, str]]:
    """Yield the class of each family's causal LM with the family's name, a family's own classes last."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    yield "Mistral4ForCausalLM", "mistral4"  # which transformers lists among models of text and pictures alone
    for family, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        own = name if isinstance(name, str) else name[0]
        start = family.replace("_text", "").replace("_", "").replace("v1dense", "densev1").replace("v1moe", "moev1")
        if own.lower().replace("_", "").startswith(start):
            yield own, family
