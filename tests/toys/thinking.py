"""A tiny model whose chat template has a switch for thinking, as Qwen3's has."""

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.call_templates import written_calls
from tests.toys.chat_templates import QWEN3
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine
from tests.toys.models import EOS_ID, IM_END_ID, SHALLOW, byte_tokenizer, tiny_model, words
from tests.toys.opening_lm import OpeningLM

OFF = {"enable_thinking": False}
EMPTY = "<think>\n\n</think>\n\n"
"""What the template writes behind the opening of an answer if thinking is off."""

SIZE = {"max_position_embeddings": 8192}
DOCUMENT = words(1, 120)
PROMPT = Prompt.from_context(DOCUMENT, "which words?")


def switched_tokenizer(chat_template=QWEN3):
    return byte_tokenizer(chat_template=chat_template, extra_tokens=("<tool_call>", "</tool_call>"))


def switched_model(seed=0):
    return tiny_model("llama", seed, vocab_size=262, **SIZE, **SHALLOW)


def switched_engine(chat_template=QWEN3, **options):
    settings = {
        "embedder": HashEmbedder(),
        "compression": CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        "sampling": SamplingParams(max_new_tokens=8),
        **options,
    }
    return light_engine(tokenizer=switched_tokenizer(chat_template), config=SIZE, **settings)


def both_texts(prepared):
    """Return the texts that target and drafter read."""
    return prepared.target.text, prepared.drafter.text


def without_thoughts(texts):
    """Return the texts as the template writes them if thinking is off."""
    return tuple(text + EMPTY for text in texts)


OPENED = QWEN3.replace("{%- if enable_thinking is defined and enable_thinking is false %}", "{%- if false %}").replace(
    "{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}"
)
"""Opens the thinking itself, as DeepSeek-R1's."""


def thinking_engine(answer, chat_template=QWEN3, **options):
    """Return an engine whose model gives this answer, whatever it is asked."""
    tokenizer = byte_tokenizer(chat_template=chat_template)
    header = "<|im_start|>assistant\n" + ("<think>\n" if chat_template == OPENED else "")
    begin, answer = (tokenizer(text, add_special_tokens=False).input_ids for text in (header, answer + "<|im_end|>"))
    model = OpeningLM(0, len(tokenizer), begin, answer)
    settings = {"embedder": HashEmbedder(), "sampling": SamplingParams(max_new_tokens=400), **options}
    return RapidEngine(LoadedModel(model, Vocabulary(tokenizer, {EOS_ID, IM_END_ID})), **settings)


_FRAME = written_calls("{{- '\\n<tool_call>\\n' + call | tojson + '\\n</tool_call>' }}")
_OPENED, _CONTENT = "{{- '<|im_start|>' + message.role + '\\n'", " + (message.content or '') }}"
_SHOWN = "{%- if message.NAME %}{{- '<think>\\n' + message.NAME | trim + '\\n</think>\\n\\n' }}{%- endif %}"


def showing(name="reasoning_content"):
    """Return a template that writes earlier thinking, which it reads under a name."""
    shown = _SHOWN.replace("NAME", name) + "{{- message.content or '' }}"
    return _FRAME.replace(_OPENED + _CONTENT, _OPENED + " }}" + shown)
