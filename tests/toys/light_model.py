"""A model for tests of what is around it: one layer in our own forward pass takes half as long as transformers' two."""

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.models import loader
from tests.toys.models import SHALLOW, byte_tokenizer, tiny_model

SEED = 2  # its answers are long: those of some seeds end by themselves after a few tokens


def light_weights(seed=SEED, tokenizer=None, **config):
    """Return transformers' model of it, with a vocabulary of the tokenizer's size."""
    tokenizer = tokenizer or byte_tokenizer()
    return tiny_model("llama", seed, **{"vocab_size": len(tokenizer), **SHALLOW, **config})


def light_model(seed=SEED, tokenizer=None, **config):
    """Return it as the engine takes it."""
    tokenizer = tokenizer or byte_tokenizer()
    return loader.wrap(light_weights(seed, tokenizer, **config), tokenizer, take_over=True)


def light_engine(seed=SEED, tokenizer=None, config=None, **settings):
    """Return an engine over it. `config`: fields of the model's configuration."""
    return RapidEngine(light_model(seed, tokenizer, **(config or {})), **settings)
