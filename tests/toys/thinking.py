"""A tiny model whose chat template has a switch for thinking, as Qwen3's has."""

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from tests.toys.chat_templates import QWEN3
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model, words

OFF = {"enable_thinking": False}
EMPTY = "<think>\n\n</think>\n\n"
"""What the template writes behind the opening of an answer if thinking is off."""

DOCUMENT = words(1, 120)
PROMPT = Prompt.from_context(DOCUMENT, "which words?")


def switched_tokenizer(chat_template=QWEN3):
    return byte_tokenizer(chat_template=chat_template, extra_tokens=("<tool_call>", "</tool_call>"))


def switched_model(seed=0):
    return tiny_model("llama", seed, vocab_size=262, max_position_embeddings=8192)


def switched_engine(chat_template=QWEN3, **options):
    settings = {
        "embedder": HashEmbedder(),
        "compression": CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
        "sampling": SamplingParams(max_new_tokens=8),
        **options,
    }
    return RapidEngine.from_models(switched_model(), switched_tokenizer(chat_template), **settings)


def both_texts(prepared):
    """Return the texts that target and drafter read."""
    return prepared.target.text, prepared.drafter.text


def without_thoughts(texts):
    """Return the texts as the template writes them if thinking is off."""
    return tuple(text + EMPTY for text in texts)
