"""What is said of names that nothing has: what was probably meant, among them other libraries' names."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError

SETTING_ALIASES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "num_output": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "repeat_penalty": "repetition_penalty",
    "random_seed": "seed",
    "num_assistant_tokens": "draft_length",
    "num_speculative_tokens": "draft_length",
}
"""Other libraries' names for settings that may differ between two requests."""

_NO_ALIASES: Mapping[str, str] = {}

_NO_SERVER = (
    "the model runs in this process and needs no server: leave it out. RapidEngine.connect(url), or base_url=... of "
    "RapidLLM and ChatRapid, asks an engine on a server"
)
_READ = "it is read from the model: leave it out"
_ONE = "an engine gives one answer to a request: ask several times, each with a seed of its own"
_STRUCTURED = "structured=StructuredOutput(json_schema=..., or regex=..., or grammar=...)"
_NOT_OFFERED = "this engine has no such setting: leave it out"
_OF_TEMPLATE = "it is an argument of some models' chat templates: chat_template_kwargs={'enable_thinking': False}"
_TABLE: dict[str, str] = {
    **dict.fromkeys(("base_url", "api_base", "host", "endpoint_url", "openai_api_base", "default_headers"), _NO_SERVER),
    **dict.fromkeys(("api_key", "openai_api_key", "huggingfacehub_api_token", "token", "request_timeout"), _NO_SERVER),
    **dict.fromkeys(("timeout", "max_retries", "keep_alive", "api_version", "http_client"), _NO_SERVER),
    **dict.fromkeys(("is_chat_model", "is_function_calling_model", "max_position_embeddings"), _READ),
    **dict.fromkeys(("n_ctx", "num_ctx", "max_model_len", "context_length", "max_seq_len"), _READ),
    **dict.fromkeys(("n", "best_of", "num_return_sequences", "num_beams"), _ONE),
    "task": 'this engine only generates text: leave it out, or give "text-generation"',
    "tokenizer_name": "a model is loaded with its own tokenizer: leave it out",
    "tokenizer_kwargs": "a model is loaded with its own tokenizer, and nothing is truncated: leave it out",
    "stopping_ids": 'stop=("...",) takes the strings themselves; end-of-turn tokens are read from the model',
    "stopping_criteria": 'stop=("...",) takes strings',
    "eos_token_id": "end-of-turn tokens are read from the model; stop=(...) takes strings",
    "ignore_eos": "min_new_tokens=max_new_tokens writes on where the model would end",
    "min_length": "min_new_tokens counts the answer alone",
    "max_length": "max_new_tokens counts the answer alone; the prompt may fill the rest of the context window",
    "load_in_8bit": 'quantization="int8"',
    "load_in_4bit": 'quantization="int4"',
    "quantization_config": 'quantization="int8" or "int4"',
    "n_gpu_layers": 'device="cuda", or device_map= for several devices',
    "tensor_parallel_size": 'device_map="auto" spreads a model over devices',
    "gpu_memory_utilization": "kv_cache_bytes limits the caches of running requests, prefix_cache_bytes those between "
    "requests",
    "max_num_seqs": "kv_cache_bytes limits the caches of running requests; further requests wait",
    "n_threads": "torch.set_num_threads or OMP_NUM_THREADS",
    "num_thread": "torch.set_num_threads or OMP_NUM_THREADS",
    **dict.fromkeys(("response_format", "guided_json", "json_schema", "format", "json_mode"), _STRUCTURED),
    **dict.fromkeys(("guided_regex", "guided_choice", "grammar", "guided_grammar"), _STRUCTURED),
    **dict.fromkeys(("typical_p", "mirostat", "tfs_z"), _NOT_OFFERED),
    **dict.fromkeys(("enable_thinking", "thinking", "reasoning_effort", "thinking_budget"), _OF_TEMPLATE),
    "context_window": _READ,
    "system_prompt": "give a system message with the prompt",
    "cache_folder": "HF_HOME sets the folder for models of a hub, RAPID_HOME the one for packaged models",
    "cache_dir": "HF_HOME sets the folder for models of a hub, RAPID_HOME the one for packaged models",
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
    "text_splitter": "node_parser",
    "node_parser": "text_splitter",
}
_PLACES: dict[str, str] = {}  # where settings are given, by their names


def given_in(place: str, names: Iterable[str]) -> None:
    """Let errors say where settings are given, if their names stand elsewhere: "sampling=SamplingParams({}=...)"."""
    _PLACES.update(dict.fromkeys(names, place))


def refuse_unknown(
    owner: str,
    names: Iterable[str],
    known: Collection[str],
    aliases: Mapping[str, str] = _NO_ALIASES,
    where: str = "",
) -> None:
    """Refuse unknown names, and suggest for each the name that was probably meant.

    Raises:
        ConfigurationError: a name is unknown.
    """
    if unknown := [name for name in names if name not in known]:
        said = "; ".join(unknown_name(owner, name, known, aliases, where) for name in unknown)
        raise ConfigurationError(said, code="unknown_name")


def unknown_name(
    owner: str, name: str, known: Collection[str], aliases: Mapping[str, str] = _NO_ALIASES, where: str = ""
) -> str:
    """Return the message for an unknown name: it suggests the likely name, or lists the known ones if they are few."""
    said = f"{owner} has no option {name!r}{where}"
    if (hint := _TABLE.get(name)) is not None and (hint not in _TABLE or hint in known):
        return f"{said}: {hint}=..." if hint in known else f"{said}: {hint}"
    if name in _PLACES:
        return f"{said}: give {_PLACES[name].format(name)}"
    # A misspelt name such as "tagret" is close to one known name. Other words are close to none.
    names = {**{alias: own for alias, own in aliases.items() if own in known}, **{own: own for own in known}}
    if alike := difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7):
        return f"{said}: did you mean {names[alike[0]]!r}?"
    if len(known) <= 16:
        return f"{said}; it has: {', '.join(known)}"
    return f"{said}; docs/configuration.md lists all options"


def require_known(
    function: Callable[..., Any], options: Iterable[str], *others: Callable[..., Any], owner: type | None = None
) -> None:
    """Refuse keyword arguments that neither `function` takes nor any of `others`, to which it passes them on.

    Args:
        function: the function that was called.
        options: the names that it was given.
        others: functions to which it passes its arguments on.
        owner: the class that the message names. None names the class that defines the function.

    Raises:
        ConfigurationError: an argument is unknown.
    """
    parameters = [each for one in (function, *others) for each in inspect.signature(one).parameters.values()]
    if not others and any(each.kind is each.VAR_KEYWORD for each in parameters):
        return  # a subclass's method, which takes more arguments than ours
    takes = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    known = [name for name in dict.fromkeys(takes) if name != "self"]
    if known:  # without known names, it is a wrapper that takes anything, and its function refuses unknown names
        name = function.__qualname__ if owner is None else f"{owner.__name__}.{function.__name__}"
        refuse_unknown(name, options, known)
