"""Greedy answers of the engine beside those of transformers' own generate."""

import codecs
import functools
import itertools

import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.prompt import Prompt
from tests.toys.embedder import HashEmbedder
from tests.toys.models import (
    EOS_ID,
    IM_END_ID,
    SPECIAL_TOKENS,
    VOCAB_SIZE,
    byte_tokenizer,
    tiny_model,
    words,
)

NEW = 16
TIE = 1e-4  # between the reference's two best logits
EOS_IDS = {EOS_ID, IM_END_ID}
TOKENIZER = byte_tokenizer()
SHORT = tuple(words(seed, count) for seed, count in ((1, 1), (2, 5), (3, 12), (4, 20)))
DOCUMENTS = tuple(Prompt.from_context(words(seed, 60), words(seed + 50, 3)) for seed in (5, 6))
COMPRESSION = CompressionConfig(
    preset="paper", chunk_tokens=16, min_tokens=64, min_chunks=1
)  # a document is about 330 tokens


@functools.cache
def model(kind, seed, **config):
    return tiny_model(kind, seed, **config)


@functools.cache
def engine(kind, seed, drafter=None, vocab_size=VOCAB_SIZE):
    """An engine over models of its own. `drafter`: (kind, seed, config items), or None for self-speculation."""
    drafter_model = None if drafter is None else tiny_model(drafter[0], drafter[1], **dict(drafter[2]))
    return RapidEngine.from_models(
        tiny_model(kind, seed, vocab_size=vocab_size),
        byte_tokenizer(),
        drafter_model=drafter_model,
        embedder=HashEmbedder(threshold=-1.0),
        compression=COMPRESSION,
    )


def prompt_ids(prompt):
    text = prompt if isinstance(prompt, str) else prompt.text
    rendered = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return TOKENIZER(rendered, add_special_tokens=False).input_ids


@functools.cache
def generated(kind, seed, prompt_text, new=NEW, penalty=1.0, vocab_size=VOCAB_SIZE, shared=None):
    """What transformers generates, and how far apart its two best logits were at each token."""
    ids = torch.tensor([prompt_ids(prompt_text)])
    result = model(kind, seed, vocab_size=vocab_size).generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new,
        repetition_penalty=penalty,
        suppress_tokens=None if shared is None else list(range(shared, vocab_size)),
        pad_token_id=EOS_ID,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(result.scores).topk(2).values
    return result.sequences[0, ids.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()


def assert_same_answer(answer, expected, gaps, tie=TIE):
    got = list(answer.token_ids)
    for place, (token, wanted) in enumerate(itertools.zip_longest(got, expected)):
        if token != wanted:
            gap = gaps[place] if place < len(gaps) else float("inf")
            assert gap < tie, f"token {place} is {token}, not {wanted} (best two {gap:.1e} apart): {got} {expected}"
            return
    assert answer.finish_reason == ("eos" if got[-1] in EOS_IDS else "length")
    assert answer.usage.completion_tokens == answer.stats.tokens == len(got)
    assert answer.text == finished_text(got)


def finished_text(token_ids):
    """What the bytes of an answer spell, without a character that is cut off at the end."""
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    tokens = [token for token in TOKENIZER.convert_ids_to_tokens(token_ids) if token not in (None, *SPECIAL_TOKENS)]
    raw = bytes(byte_of[letter] for letter in "".join(tokens))
    return codecs.getincrementaldecoder("utf-8")("replace").decode(raw, final=False)


def ask(running, prompt, proposer="drafter", length=4, law="target", new=NEW, penalty=1.0, **speculation):
    return running.generate(
        prompt,
        sampling=SamplingParams(max_new_tokens=new, repetition_penalty=penalty),
        speculation=SpeculationConfig(law=law, proposer=proposer, draft_length=length, **speculation),
    )


def text_of(prompt):
    return prompt if isinstance(prompt, str) else prompt.text


def generated_with_gaps(plain, ids, count):
    """Return `count` tokens that transformers generates, and at each the distance between its two best logits."""
    ids = torch.tensor([ids])
    result = plain.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.cat(result.scores).topk(2).values
    return result.sequences[0, ids.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()
