"""Engines over the call formats of several families, tools, and requests for calls."""

import functools

import jsonschema

from rapid_integrations import (
    Completion,
    RapidEngine,
    SamplingParams,
)
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.call_templates import CODER, COMMAND, DSML, GEMMA4, GLM, KIMI, LIQUID, MINIMAX, SMALL
from tests.toys.chat_templates import LLAMA31, MISTRAL, QWEN3, QWEN25, TAGGED
from tests.toys.light_model import light_engine
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer
from tests.toys.opening_lm import OpeningLM

TEMPLATES = {"qwen2.5": QWEN25, "qwen3": QWEN3, "llama": LLAMA31, "mistral": MISTRAL, "tagged": TAGGED}
NEWER = {
    "coder": CODER,
    "glm": GLM,
    "minimax": MINIMAX,
    "dsml": DSML,
    "kimi": KIMI,
    "small": SMALL,
    "gemma4": GEMMA4,
    "liquid": LIQUID,
    "command": COMMAND,
}
"""Formats whose arguments are no JSON object, or whose calls are numbered."""
TOKENS = {  # those that the families' own tokenizers have
    "qwen2.5": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
    "qwen3": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
    "llama": ("<|eot_id|>", "<|python_tag|>"),
    "mistral": ("[TOOL_CALLS]", "[INST]", "[/INST]"),
    "tagged": (),
    "coder": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
    "glm": ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "minimax": ("<minimax:tool_call>", "</minimax:tool_call>"),
    "dsml": ("｜DSML｜",),
    "kimi": (
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>"),
        "<|tool_call_argument_begin|>",
    ),
    "small": ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    "gemma4": ("<|tool_call>", "<tool_call|>", '<|"|>'),
    "liquid": ("<|tool_call_start|>", "<|tool_call_end|>"),
    "command": ("<|START_ACTION|>", "<|END_ACTION|>"),
}
HEADER = {
    "qwen2.5": "<|im_start|>assistant\n",
    "qwen3": "<|im_start|>assistant\n",
    "llama": "assistant<|end_header_id|>\n\n",
    "mistral": "[/INST]",
    "tagged": "<|im_start|>assistant\n",
    **dict.fromkeys(NEWER, "<|im_start|>assistant\n"),
}
SMALL_INT = {"type": "integer", "minimum": 0, "maximum": 50}


def tool(name, properties, **more):
    parameters = {"type": "object", "properties": properties, **more}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


UNITS = {"type": "string", "enum": ["°C", '"F"']}
TOOLS = [
    tool("get_weather", {"city": {"type": "string", "maxLength": 5}, "unit": UNITS}, required=["city"]),
    tool("add", {"a": SMALL_INT, "b": {"anyOf": [SMALL_INT, {"type": "null"}]}}, required=["a", "b"]),
    {"type": "function", "function": {"name": "now"}},
]
SCHEMAS = {each["function"]["name"]: each["function"].get("parameters", {"type": "object"}) for each in TOOLS}


def tokenizer_of(family, marked):
    tokenizer = byte_tokenizer(chat_template=(TEMPLATES | NEWER)[family], extra_tokens=TOKENS[family] if marked else ())
    tokenizer.bos_token, tokenizer.eos_token = "<|bos|>", "<|eos|>"
    return tokenizer


@functools.cache
def engine(family, marked=True, seed=0):
    tokenizer = tokenizer_of(family, marked)
    return light_engine(seed, tokenizer, {"max_position_embeddings": 8192})


def opening_engine(family, opening, marked=True, seed=0):
    """An engine whose model begins its answer with `opening`."""
    tokenizer = tokenizer_of(family, marked)
    header, begins = (tokenizer(text, add_special_tokens=False).input_ids for text in (HEADER[family], opening))
    model = OpeningLM(seed, len(tokenizer), header, begins)
    return RapidEngine(LoadedModel(model, Vocabulary(tokenizer, {EOS_ID, IM_END_ID})))


def ask(running, choice="auto", *, new=220, tools=TOOLS, prompt="what is it?", parallel=True, **sampling):
    stream = running.stream(
        prompt,
        sampling=SamplingParams(max_new_tokens=new, **sampling),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
    )
    with stream:
        pieces = list(stream)
    assert all(not piece.tool_calls for piece in pieces[:-1])
    return Completion.join(pieces)


def assert_valid(answer):
    for call in answer.tool_calls:
        jsonschema.validate(call.arguments, SCHEMAS[call.name])
        assert (call.id.isalnum() and len(call.id) == 9) or call.id.startswith(f"functions.{call.name}:")
        assert set(call.arguments) <= set(SCHEMAS[call.name].get("properties", {}))
