"""Which tokens end an answer: what the settings say, and what the chat template ends a turn with.

A file may name the end of a text ("<eos>") and be silent about the end of a turn ("<end_of_turn>"), behind which an
instruction-tuned model never stops by itself. So the settings are believed, and added to: by the token that the
template writes behind an answer, and by control tokens that are known to end turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

# Control tokens that end a turn or a text and nothing else, by what published tokenizers call them.
KNOWN_ENDS = frozenset(
    {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|eot|>",
        "<|eom|>",
        "<|end|>",
        "<|endofturn|>",
        "<|end_of_turn|>",
        "<end_of_turn>",
        "<turn|>",
        "<end_of_utterance>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|END_RESPONSE|>",
        "<|end▁of▁sentence|>",
        "<｜end▁of▁sentence｜>",
        "<|assistant_end|>",
        "<|return|>",
        "<|return_token|>",
        "<|eos|>",
        "[EOS]",
        "[EOT]",
        "< EOT >",
        "_<EOT>",
        "[e~[",
        "</s>",
    }
)
# Templates that split an answer into channels write these between the channels, too.
_BETWEEN_CHANNELS = {"<|end|>"}
_ANSWER = "\ue000answer\ue001"

Render = Callable[[list[dict[str, Any]], bool], str]
"""Messages and whether an answer is opened, to the text; raises for messages that the template refuses."""


def end_token_ids(model: Any, tokenizer: Any, render: Render | None) -> frozenset[int]:
    """Return every id that ends an answer.

    Args:
        model: a transformers model: its generation settings and its configuration count.
        tokenizer: its tokenizer; `added_tokens_decoder` says which tokens are control tokens.
        render: the chat template; None without one.
    """
    control = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    known = set(control.values()) | {index for index in tokenizer.all_special_ids if index is not None}
    found = {*_ids(getattr(model.generation_config, "eos_token_id", None))}
    for config in (model.config, model.config.get_text_config(decoder=True)):
        own = _ids(getattr(config, "eos_token_id", None))
        # What a class has for a default says nothing of this tokenizer, where that id may be a letter.
        found |= own if own != _default(config) else own & known
    own_end = _ids(tokenizer.eos_token_id)
    # A tokenizer without the token that it calls its end gives the id of what is unknown to it.
    found |= {index for index in own_end if tokenizer.convert_ids_to_tokens(index) == str(tokenizer.eos_token)}
    channels = "<|channel|>" in str(tokenizer.chat_template or "")
    found |= {
        index
        for token, index in control.items()
        if token in KNOWN_ENDS and not (channels and token in _BETWEEN_CHANNELS)
    }
    if render is not None:
        found |= _ends_of_fair_lock(render, control)
    return frozenset(index for index in found if 0 <= index < _highest(model))


def _ends_of_fair_lock(render: Render, control: dict[str, int]) -> set[int]:
    """Return the control token that the template writes right behind an answer, if it writes one there."""
    question, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": _ANSWER}
    for messages in ([question, answer], [question, answer, question]):
        try:
            text = render(messages, False)
        except Exception:  # a template may refuse an answer at the end, or anything else
            continue
        before, mark, after = text.rpartition(_ANSWER)
        if not mark:
            continue
        after = after.lstrip()
        if ends := [token for token in control if token and after.startswith(token)]:
            return {control[max(ends, key=len)]}
    return set()


def _ids(value: Any) -> set[int]:
    values: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    return {each for each in values if type(each) is int}


def _default(config: Any) -> set[int]:
    fields = getattr(type(config), "__dataclass_fields__", {})
    return _ids(getattr(fields.get("eos_token_id"), "default", None))


def _highest(model: Any) -> int:
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.get_text_config(decoder=True).vocab_size)
