"""An engine over a tiny model, and a request for it."""

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine
from tests.toys.models import byte_tokenizer, tiny_model, words

SMALL = CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2)
SHORT = SamplingParams(max_new_tokens=12)
DOCUMENT = words(1, 120)
PROMPT = Prompt.from_context(DOCUMENT, "which words?")


def engine(config=None, **options):
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SHORT, **options}
    if "drafter_model" in settings:
        return RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer(), **settings)
    return light_engine(config=config, **settings)
