"""docs/models.md: families of models, GGUF files, models that think, quantised checkpoints."""

from __future__ import annotations

from docs.reference import checkpoints, families, gguf_files

THINKING = """## Models that think first

Qwen3, GLM-4.5, DeepSeek-V3.1, SmolLM3, Granite, GPT-OSS and others write their reasoning before the answer. Their chat
templates read a name that switches it off or sets its effort. `chat_template_kwargs={"enable_thinking": False}` gives
such names to the template: to an engine, an LLM, a request, or as `--template-argument enable_thinking=false`. A name
that a template does not read is refused with the names that it reads. `engine.vocabulary.template_names` lists them.

The server, LangChain's and LlamaIndex's messages give the thinking apart from the answer. The marks have to be known by
the template, in its text or at the end of the prompt, where some templates begin the thinking themselves. The engine's
own text shows both, with the marks, also where those are control tokens. Thinking that is sent back with an earlier
answer (`reasoning_content`) reaches the templates that show it to the model
([conversations with calls](structured-output.md#conversations-with-calls)).

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
"""


def models() -> str:
    """Return the text of docs/models.md."""
    return "\n".join([families.section(), gguf_files.section(), THINKING, checkpoints.section()])
