"""Arguments under the names that other libraries give them, and what was meant by a name that does not exist.

The names are those of transformers (`HuggingFaceLM`, `HuggingFacePipeline`), vLLM, llama.cpp, Ollama and OpenAI, whose
classes people come from. What means the same is taken; what has no counterpart is refused with the way out.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from rapid_integrations.config import CompressionConfig, SamplingFields, SpeculationFields
from rapid_integrations.errors import ConfigurationError

SETTING_ALIASES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "num_output": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "repeat_penalty": "repetition_penalty",
    "random_seed": "seed",
    "num_assistant_tokens": "draft_length",
    "num_speculative_tokens": "draft_length",
}
"""Other names of what may differ between two requests."""

MODEL_ALIASES = {
    "model_name": "target",
    "model_id": "target",
    "model_path": "target",
    "pretrained_model_name_or_path": "target",
    "draft_model": "drafter",
    "speculative_model": "drafter",
    "assistant_model": "drafter",
    "torch_dtype": "dtype",
}
"""Other names of what is loaded."""

_NO_ALIASES: Mapping[str, str] = {}

NESTED = ("generate_kwargs", "generation_kwargs", "pipeline_kwargs", "model_kwargs", "additional_kwargs")
"""Dictionaries of settings, which are arguments of their own here."""

TRANSPORT = frozenset(
    "api_base api_key api_version base_url callbacks config default_headers extra_headers extra_query headers "
    "http_client ls_structured_output_format max_retries metadata num_retries organization prompt_cache_key "
    "prompt_cache_retention request_timeout run_id run_name safety_identifier service_tier store stream "
    "stream_options stream_usage tags timeout user".split()
)
"""What a call says about the way to a server, or for its accounts: without meaning for a model in this process."""

_NO_SERVER = "the model runs in this process, there is no server to reach: leave it out"
_READ = "it is read from the model: leave it out"
_ONE = "an engine gives one answer to a request: ask several times, each with a seed of its own"
_STRUCTURED = "structured=StructuredOutput(json_schema=..., or regex=..., or grammar=...)"
_NOT_OFFERED = "this engine has nothing like it: leave it out"
_TABLE: dict[str, str] = {
    **dict.fromkeys(("base_url", "api_base", "host", "endpoint_url", "openai_api_base", "default_headers"), _NO_SERVER),
    **dict.fromkeys(("api_key", "openai_api_key", "huggingfacehub_api_token", "token", "request_timeout"), _NO_SERVER),
    **dict.fromkeys(("timeout", "max_retries", "keep_alive", "api_version", "http_client"), _NO_SERVER),
    **dict.fromkeys(("is_chat_model", "is_function_calling_model", "max_position_embeddings"), _READ),
    **dict.fromkeys(("n_ctx", "num_ctx", "max_model_len", "context_length", "max_seq_len"), _READ),
    **dict.fromkeys(("n", "best_of", "num_return_sequences", "num_beams"), _ONE),
    "task": 'models write text here: leave it out, or give "text-generation"',
    "tokenizer_name": "a model is loaded with its own tokenizer: leave it out",
    "tokenizer_kwargs": "a model is loaded with its own tokenizer, and nothing is truncated: leave it out",
    "stopping_ids": 'stop=("...",) takes the strings themselves; end-of-turn tokens are read from the model',
    "stopping_criteria": 'stop=("...",) takes strings',
    "eos_token_id": "end-of-turn tokens are read from the model; stop=(...) takes strings",
    "max_length": "max_new_tokens counts the answer alone; the prompt may fill the rest of the context window",
    "load_in_8bit": 'quantization="int8"',
    "load_in_4bit": 'quantization="int4"',
    "quantization_config": 'quantization="int8" or "int4"',
    "n_gpu_layers": 'device="cuda", or device_map= for several devices',
    "tensor_parallel_size": 'device_map="auto" spreads a model over devices',
    "gpu_memory_utilization": "prefix_cache_bytes bounds what is kept between requests",
    "n_threads": "torch.set_num_threads or OMP_NUM_THREADS",
    "num_thread": "torch.set_num_threads or OMP_NUM_THREADS",
    **dict.fromkeys(("response_format", "guided_json", "json_schema", "format", "json_mode"), _STRUCTURED),
    **dict.fromkeys(("guided_regex", "guided_choice", "grammar", "guided_grammar"), _STRUCTURED),
    **dict.fromkeys(("logit_bias", "reasoning_effort", "typical_p", "mirostat", "tfs_z"), _NOT_OFFERED),
    "context_window": _READ,
    "system_prompt": "give a system message with the prompt",
    "cache_folder": "HF_HOME says where models of a hub are kept, RAPID_HOME where packaged ones are",
    "cache_dir": "HF_HOME says where models of a hub are kept, RAPID_HOME where packaged ones are",
    "pipeline": "model=pipeline.model, tokenizer=pipeline.tokenizer",
    "llm": "engine=llm.rapid_engine",
    "streaming": "stream_complete, stream_chat and their asynchronous forms stream",
    "embedding": "embed_model",
    "embedding_model": "embed_model",
    "embeddings": "embed_model",
    "embed_model": "embeddings",
    "chunk_size": "compression=CompressionConfig(chunk_tokens=...)",
    "logprobs": "an answer's tokens are explained by `rapid_integrations.trace`: engine.stream(..., trace=True)",
    "top_logprobs": "an answer's tokens are explained by `rapid_integrations.trace`: engine.stream(..., trace=True)",
    "logit_bias": "single tokens cannot be made more or less likely; structured output allows or forbids text",
    "text_splitter": "node_parser",
    "node_parser": "text_splitter",
}
_WITHOUT_EFFECT = {"verbose": (True, False), "task": ("text-generation",), "n": (1,), "best_of": (1,)} | {
    "num_return_sequences": (1,),
    "num_beams": (1,),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "return_full_text": (False,),
    "use_cache": (True,),
    "echo": (False,),
    "logit_bias": ({},),
    "skip_special_tokens": (True,),
    "ignore_eos": (False,),
}
_ELSEWHERE = {
    **dict.fromkeys(CompressionConfig.model_fields, "compression=CompressionConfig({}=...)"),
    **dict.fromkeys(SamplingFields.model_fields, "sampling=SamplingParams({}=...)"),
    **dict.fromkeys(SpeculationFields.model_fields, "speculation=SpeculationConfig({}=...)"),
}


def own_names(given: Mapping[str, Any], known: Collection[str], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments under this package's names; those without effect are left out.

    Args:
        given: names and values. A dictionary of `NESTED` stands for what it holds.
        known: this package's own names.
        aliases: other names of them.

    Raises:
        ConfigurationError: one setting under two names, with two values.
    """
    found: dict[str, Any] = {}
    flat = dict(given)
    for nest in NESTED:
        if nest not in known and isinstance(inner := flat.get(nest), Mapping):
            del flat[nest]
            for name, value in inner.items():
                flat.setdefault(str(name), value)
    if "do_sample" not in known and isinstance(sample := flat.get("do_sample"), bool):
        del flat["do_sample"]
        # transformers ignores the temperature without it, and takes 1.0 where none is given.
        flat["temperature"] = (flat.get("temperature") or 1.0) if sample else 0.0
    spelt: dict[str, str] = {}
    for name, value in flat.items():
        own = name if name in known else aliases.get(name, name)
        if own not in known and value in _WITHOUT_EFFECT.get(name, ()):
            continue
        if own in found and value is not None and found[own] is not None and value != found[own]:
            raise ConfigurationError(
                f"{spelt[own]}={found[own]!r} and {name}={value!r} are one setting, {own}: give one of them"
            )
        if value is not None or own not in found:
            found[own], spelt[own] = value, name
    return found


def refuse_unknown(
    owner: str,
    names: Iterable[str],
    known: Collection[str],
    aliases: Mapping[str, str] = _NO_ALIASES,
    where: str = "",
) -> None:
    """Refuse names that are none, each with what was probably meant.

    Raises:
        ConfigurationError: there are such names.
    """
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError("; ".join(unknown_name(owner, name, known, aliases, where) for name in unknown))


def unknown_name(
    owner: str, name: str, known: Collection[str], aliases: Mapping[str, str] = _NO_ALIASES, where: str = ""
) -> str:
    """Return what to say of a name that does not exist: the one that was meant, or the few that there are."""
    said = f"{owner} has no option {name!r}{where}"
    if (hint := _TABLE.get(name)) is not None and (hint not in _TABLE or hint in known):
        return f"{said}: {hint}=..." if hint in known else f"{said}: {hint}"
    # "tagret" is nearer to "target" than to anything else; a word that is like nothing has no nearest one.
    names = {**{alias: own for alias, own in aliases.items() if own in known}, **{own: own for own in known}}
    if alike := difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7):
        return f"{said}: did you mean {names[alike[0]]!r}?"
    if name in _ELSEWHERE:
        return f"{said}: give {_ELSEWHERE[name].format(name)}"
    if len(known) <= 12:
        return f"{said}; it has: {', '.join(known)}"
    return f"{said}; docs/configuration.md lists those that there are"


def require_known(function: Callable[..., Any], options: Iterable[str], *others: Callable[..., Any]) -> None:
    """Refuse keyword arguments that neither `function` nor one of `others`, which it passes them to, has.

    Raises:
        ConfigurationError: there are such arguments.
    """
    parameters = [each for one in (function, *others) for each in inspect.signature(one).parameters.values()]
    if not others and any(each.kind is each.VAR_KEYWORD for each in parameters):
        return  # a subclass's, which takes more than ours
    takes = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    known = [name for name in dict.fromkeys(takes) if name != "self"]
    if known:  # a wrapper that takes anything lets its function say what it does not take
        refuse_unknown(function.__qualname__, options, known)


def shown(value: object) -> str:
    """Return a value for an error message: short, and an object by its class."""
    if isinstance(value, (str, bytes, int, float, bool)) or value is None:
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"
