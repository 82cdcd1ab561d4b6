"""Finds the tokens that end an answer: those in the settings, and the one with which the chat template ends a turn.

A file may name the end of a text ("<eos>") and omit the end of a turn ("<end_of_turn>"). An instruction-tuned model
would then not stop after its answer. So two kinds of tokens are added to those in the settings: the token that the
template writes behind an answer, and control tokens that are known to end turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

# Names in published tokenizers of control tokens that only ever end a turn or a text.
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
        "<|tool_response>",
        "<|call|>",
        "<|calls|>",
        "<|flush|>",
        "<eos>",
        "<EOT>",
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
        # of a file or a repository of code, in models that complete code
        *("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|file_sep|>"),
        *("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    }
)
# It ends an answer of Phi-3. GPT-OSS and Solar Open, whose answers have several parts, write it between the parts.
_BETWEEN_PARTS = "<|end|>"
_OF_PARTS = ({"<|return|>", "<|call|>"}, {"<|flush|>", "<|calls|>"})
_TAGS = {"</s>"}  # of HTML in Gemma's vocabulary, unless they are control tokens
_ANSWER = "\ue000answer\ue001"

Render = Callable[[list[dict[str, Any]], bool], str]
"""Renders messages to text; the flag asks for the opening of an answer. Raises if the template refuses the messages."""


def end_token_ids(model: Any, tokenizer: Any, render: Render | None) -> frozenset[int]:
    """Return every id that ends an answer.

    Args:
        model: a transformers model; its generation settings and its configuration are read.
        tokenizer: its tokenizer; `added_tokens_decoder` says which tokens are control tokens.
        render: renders the chat template; None if there is none.
    """
    control = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    known = set(control.values()) | {index for index in tokenizer.all_special_ids if index is not None}
    found = {*_ids(getattr(model.generation_config, "eos_token_id", None))}
    for config in (model.config, model.config.get_text_config(decoder=True)):
        own = _ids(getattr(config, "eos_token_id", None))
        # A class default tells nothing about this tokenizer: the id may be a letter here.
        found |= own if own != _default(config) else own & known
    own_end = _ids(tokenizer.eos_token_id)
    # If the vocabulary lacks the tokenizer's end token, the tokenizer returns the id of the unknown token.
    found |= {index for index in own_end if tokenizer.convert_ids_to_tokens(index) == str(tokenizer.eos_token)}
    of_parts = "<|channel|>" in str(tokenizer.chat_template or "") or any(ends <= control.keys() for ends in _OF_PARTS)
    likely = {token: index for token, index in control.items() if not (of_parts and token == _BETWEEN_PARTS)}
    ordinary = {token.content for token in tokenizer.added_tokens_decoder.values() if not token.special}
    found |= {likely[token] for token in likely.keys() & KNOWN_ENDS - (ordinary & _TAGS)}
    if render is not None:
        found |= _ends_of_turns(render, likely)
    return frozenset(index for index in found if 0 <= index < _highest(model))


def _ends_of_turns(render: Render, control: dict[str, int]) -> set[int]:
    """Return the control token that the template writes right behind an answer, if it writes one there.

    One that it also writes between an answer's opening and the answer itself ends a part of it (Kimi-K3's thinking).
    """
    question, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": _ANSWER}
    for messages in ([question, answer], [question, answer, question]):
        try:
            text = render(messages, False)
        except Exception:  # a template may refuse a final answer, or fail for any other reason
            continue
        before, mark, after = text.rpartition(_ANSWER)
        if not mark:
            continue
        inside = _behind_opening(render, question, before)
        while ends := [token for token in control if token and after.lstrip().startswith(token)]:
            end = max(ends, key=len)
            if end not in inside:
                return {control[end]}
            following = [
                at for token in control if token and (at := after.find(token, after.index(end) + len(end))) >= 0
            ]
            after = after[min(following, default=len(after)) :]
    return set()


def _behind_opening(render: Render, question: dict[str, Any], before: str) -> str:
    """Return what a template writes between the opening of an answer and the answer; `before` ends at the answer."""
    try:
        opening = render([question], True)
    except Exception:
        return ""
    return before[len(os.path.commonprefix([opening, before])) :]


def _ids(value: Any) -> set[int]:
    values: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    return {each for each in values if type(each) is int}


def _default(config: Any) -> set[int]:
    fields = getattr(type(config), "__dataclass_fields__", {})
    return _ids(getattr(fields.get("eos_token_id"), "default", None))


def _highest(model: Any) -> int:
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.get_text_config(decoder=True).vocab_size)
