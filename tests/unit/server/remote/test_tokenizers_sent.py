"""A server's tokenizer, used by its clients."""

import json

import pytest

from rapid_integrations import ModelLoadError, RemoteError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.server.remote.tokenizers_sent import digest_of, received, sent
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer

TEXTS = ("hello", "the then", "<|im_end|> in a document", "Größe 東京 🙂", "")


def vocabulary(**options):
    return Vocabulary(byte_tokenizer(**options), [EOS_ID, IM_END_ID])


def over_the_wire(some):
    return received(json.loads(json.dumps(sent(some))), "http://a")


@pytest.mark.parametrize("options", [{}, {"merges": [("t", "h")], "add_bos": True}, {"chat_template": None}], ids=str)
def test_it_is_the_same_tokenizer(options):
    here = vocabulary(**options)
    there = over_the_wire(here)
    here.require_same(there, "here", "there")
    assert digest_of(there) == digest_of(here)
    assert (there.eos_token_ids, there.template_date) == (here.eos_token_ids, here.template_date)
    assert there.added_tokens == here.added_tokens and there.template_tokens == here.template_tokens
    for text in TEXTS:
        assert there.encode(text) == here.encode(text) and there.offsets(text) == here.offsets(text)
    if here.chat_template is not None:
        messages = [{"role": "user", "content": "hello"}]
        assert there.render_chat(messages) == here.render_chat(messages)
    ids = here.encode(TEXTS[3])
    assert there.decode([*ids, EOS_ID]) == here.decode([*ids, EOS_ID]) == TEXTS[3]


def test_another_tokenizer_has_another_digest():
    assert digest_of(vocabulary()) != digest_of(vocabulary(merges=[("t", "h")]))


@pytest.mark.parametrize(
    "damage",
    [{"tokenizer": "{}"}, {"tokenizer": 7}, {"roles": 7}, {"eos_token_ids": ["a"]}, {"template_date": "today"}],
    ids=str,
)
def test_a_damaged_one_is_refused(damage):
    with pytest.raises(RemoteError, match="cannot be read"):
        received({**sent(vocabulary()), **damage}, "http://a")


def test_a_template_out_of_bounds_is_refused():
    body = {**sent(vocabulary()), "chat_template": "{{ 'a' * 999999999999 }}"}
    with pytest.raises(ModelLoadError):
        received(body, "http://a")


def test_what_a_server_adds_to_the_roles_is_left_out():
    body = sent(vocabulary())
    body["roles"] |= {"clean_up_tokenization_spaces": "x", "name_or_path": "/etc"}
    assert received(body, "http://a").tokenizer.name_or_path != "/etc"
