"""The call format that is learnt from a chat template, and what a model writes that keeps to it."""

import json

from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.tool_calls import learn_call_format
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer


def learn(template):
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.bos_token, tokenizer.eos_token = "<|bos|>", "<|eos|>"
    vocabulary = Vocabulary(tokenizer, {EOS_ID, IM_END_ID})
    return learn_call_format(vocabulary.render_chat, vocabulary.eos_tokens, "the model")


def write(form, *calls):
    """Return what a model that keeps to the format writes."""
    written = [
        (str(number) if form.numbered else "")
        + form.head
        + name
        + form.middle
        + {"id": f"abc12345{number}", "number": str(number), None: ""}[form.identity]
        + form.identity_tail
        + (json.dumps(arguments, ensure_ascii=False) if form.tagged is None else form.tagged.write(arguments))
        + form.tail
        + ("" if form.id_tail is None else f"abc12345{number}" + form.id_tail)
        for number, (name, arguments) in enumerate(calls)
    ]
    return form.before + form.between.join(written) + form.after
