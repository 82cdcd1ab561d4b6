"""The architectures of GGUF files that are read in their blocks."""

from __future__ import annotations

from docs.reference.tables import Row, table
from rapid_integrations.models.gguf import experts_config, families

TEXT = """## GGUF files

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
"""


def section() -> str:
    """Return the section: the architectures of files that are read, and the classes that compute them."""
    found: dict[str, set[str]] = {}
    own = (families.ARCHITECTURES, families.WITH_WINDOWS, families.WITH_POSITIONS, families.NORMALISED)
    for architectures in (*own, experts_config.ARCHITECTURES, experts_config.WITH_SHARED):
        for name, architecture in architectures.items():
            found.setdefault(name, set()).add(f"`{architecture.class_name}`")
    found["deepseek2"].add("`DeepseekV2ForCausalLM`")  # of which scores are a softmax
    found["mistral3"].add("`MistralForCausalLM`")  # whose queries do not grow
    rows: list[Row] = [(f"`{name}`", ", ".join(sorted(each))) for name, each in sorted(found.items())]
    return TEXT.format(files=table(("architecture", "classes"), rows))
