"""Small models of described families: on the kernels, and with the same weights in float32 on PyTorch's operators."""

import torch

from rapid_integrations.cache import Rows
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.every_family import TEXT, decoded, generated, ids, tiny


def small(family, factor=0.3, **settings):
    """Return a model in bfloat16 with numbers so small that rounding does not explode."""
    made = tiny(family, 1, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
    return made.bfloat16()


def float32_copy(lm):
    """Return transformers' model with the weights used here in float32.

    MiniMax-01 keeps its decays rounded to the model's dtype. They are computed anew.
    """
    copied = lm.transformers_copy(torch.float32)
    for module in copied.modules():
        if hasattr(module, "decay_factors"):
            module.slope_rate = module.get_slope_rate()
            module.query_decay, module.key_decay, module.diagonal_decay = module.decay_factors(module.slope_rate)
    return copied


def in_pieces(lm, *lengths):
    """Return the logits of a text that is read in pieces of these lengths, the first one as a prompt."""
    cache, parts, begin = lm.new_cache(TEXT), [], 0
    for length in lengths:
        parts += lm.forward([Rows(ids()[begin : begin + length], cache, length, of_prompt=begin == 0)])
        begin += length
    return torch.cat(parts)


def assert_generates(family, **settings):
    """Greedy tokens by PyTorch's operators, with rejected drafts, are those of transformers."""
    lm = HuggingFaceLM(tiny(family, 2, **settings), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny(family, 2, **settings))


def assert_on_kernels(model, quantization):
    """Steps of the kernels are the model in float32, and a row has the same bits alone and among others."""
    ours = HuggingFaceLM(model, take_over=True, quantization=quantization)
    assert ours._fused._native is not None, ours.kernels
    exact = HuggingFaceLM(float32_copy(ours), take_over=True)
    found, expected = (in_pieces(lm, 60, 1, 2, 3, 30, 4) for lm in (ours, exact))
    errors = (found - expected).norm(dim=1) / expected.norm(dim=1)  # rounding sends some rows to other experts
    assert errors[60:].median() < (0.12 if quantization else 0.05)
    assert torch.equal(found[60:], in_pieces(ours, 60, *[1] * 40)[60:])


def assert_given_back(model):
    """A copy of the model that was taken over has the weights that it had, and the whole of them is used."""
    before = {name: each.clone() for name, each in model.state_dict().items()}
    given = HuggingFaceLM(model, take_over=True).transformers_copy(model.dtype).state_dict()
    assert given.keys() == before.keys() and all(torch.equal(given[name], before[name]) for name in before)


def matters(family, name, factor=0.5, **settings):
    """Whether a parameter of a model, multiplied by a factor, changes what is computed here."""
    other = tiny(family, **settings)
    with torch.no_grad():
        other.get_parameter(name).mul_(factor)
    lms = [HuggingFaceLM(each, take_over=True) for each in (tiny(family, **settings), other)]
    whole, changed = (in_pieces(lm, TEXT) for lm in lms)
    return bool((whole - changed).norm() / whole.norm() > 1e-3)
