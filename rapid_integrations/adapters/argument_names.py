"""Translation of other libraries' argument names.

They are the names of transformers (`HuggingFaceLM`, `HuggingFacePipeline`), vLLM, llama.cpp, Ollama and OpenAI, from
which users migrate. Arguments with the same meaning are accepted. `config` has the messages for the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError

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
"""Other libraries' names for settings of what is loaded."""

NESTED = ("generate_kwargs", "generation_kwargs", "pipeline_kwargs", "model_kwargs", "additional_kwargs")
"""Other libraries' dictionaries of settings. Here each setting is an argument."""

TRANSPORT = frozenset(
    "api_base api_key api_version base_url callbacks config default_headers extra_headers extra_query headers "
    "http_client ls_structured_output_format max_retries metadata num_retries organization prompt_cache_key "
    "prompt_cache_retention request_timeout run_id run_name safety_identifier service_tier store stream "
    "stream_options stream_usage tags timeout user".split()
)
"""Arguments about a server connection or its accounting. They have no meaning for a model in this process."""

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


def own_names(given: Mapping[str, Any], known: Collection[str], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return arguments under this package's names, without those that have no effect.

    Args:
        given: names and values. A dictionary of `NESTED` is replaced by its items.
        known: this package's own names.
        aliases: other names for them.

    Raises:
        ConfigurationError: two names of one setting have different values.
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
        # Without do_sample, transformers ignores the temperature. With it, the default temperature is 1.0.
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
