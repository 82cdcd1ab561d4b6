"""The call format that is learnt from a chat template."""

from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.tool_calls import learn_call_format
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer


def learn(template):
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.bos_token, tokenizer.eos_token = "<|bos|>", "<|eos|>"
    vocabulary = Vocabulary(tokenizer, {EOS_ID, IM_END_ID})
    return learn_call_format(vocabulary.render_chat, vocabulary.eos_tokens, "the model")
