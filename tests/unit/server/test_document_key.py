"""Which requests are about one document."""

import json

import pytest

from rapid_integrations import Prompt
from rapid_integrations.server.document_key import document_key
from rapid_integrations.server.remote.requests_sent import prompt_sent
from tests.toys.repository import ROOT

CHAT, ID = "/v1/chat/completions", "file-" + "a" * 32
HANDBOOK = (ROOT / "examples" / "handbook.md").read_text()
ONE, OTHER = HANDBOOK[:3000], HANDBOOK[3000:6000]
TEMPLATE = (
    "Use the following context as your learned knowledge, inside <context></context> XML tags.\n<context>\n{}\n"
    "</context>\n\nQuery: {}"
)


def key(body, path=CHAT, session=None):
    return document_key(path, session, body if isinstance(body, bytes) else json.dumps(body).encode())


def chat(*contents, role="user", **more):
    return {"model": "tiny", "messages": [{"role": role, "content": content} for content in contents], **more}


def test_a_file_is_its_own_key_wherever_it_is_named():
    part = {"type": "file", "file": {"file_id": ID}}
    assert document_key(f"/v1/files/{ID}", None, b"") == document_key(f"/v1/files/{ID}/text", "s", b"") == ID
    assert key(chat("Why?", rapid={"documents": [{"file_id": ID}, {"text": ONE}]})) == ID
    assert key(chat([part, {"type": "text", "text": "Why?"}]), session="mine") == ID
    inline = {"type": "file", "file": {"filename": "a.txt", "file_data": "QUJD"}}
    why, who = {"type": "text", "text": "Why?"}, {"type": "text", "text": "Who?"}
    assert key(chat([inline, why])) == key(chat([who, inline])) is not None


@pytest.mark.parametrize(
    "about",
    [
        lambda text, question: chat(question, rapid={"documents": [{"text": text}]}),
        lambda text, question: chat(question, rapid={"context": text}),
        lambda text, question: chat(TEMPLATE.format(text, question)),
        lambda text, question: {"prompt": TEMPLATE.format(text, question)},
        lambda text, question: {"prompt": [TEMPLATE.format(text, question)]},
        lambda text, question: {"prompt": prompt_sent(Prompt.from_context(text, question))},
        lambda text, question: {
            "messages": [
                {"role": "system", "content": TEMPLATE.format(text, "")},
                {"role": "user", "content": question},
            ]
        },
        lambda text, question: {
            "prompt": prompt_sent([{"role": "user", "content": Prompt.from_context(text, question)}])
        },
    ],
    ids=["documents", "context", "template", "completion", "prompts", "remote", "system", "remote messages"],
)
def test_questions_about_one_text_have_one_key(about):
    keys = [key(about(ONE, question)) for question in ("How long is the first word?", "Which word is the last one?")]
    assert keys[0] == keys[1] is not None
    assert keys[0] != key(about(OTHER, "How long is the first word?"))


def test_turns_of_one_conversation_have_one_key():
    first = chat("Hello, who are you?")
    later = chat("Hello, who are you?", "And now?")
    later["messages"].insert(1, {"role": "assistant", "content": "A model."})
    assert key(first) == key(later) != key(chat("Hello, what is this?"))


def test_a_session_is_the_key_of_what_names_no_document():
    assert key(chat("Why?"), session="mine") == key(chat("How?"), session="mine") != key(chat("Why?"), session="yours")
    assert document_key("/rapid/v1/drafter/open", "mine", b"\x00frame") == key(chat("Why?"), session="mine")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"messages": 1}',
        b'{"messages": [1, {"content": 2}]}',
        b'{"rapid": []}',
        b'{"rapid": {"documents": [1, {}]}}',
        b'{"prompt": [[1, 2]]}',
        b'{"prompt": {"rapid_prompt": 1}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_wrong_goes_to_any_replica(body):
    assert key(body) is None


def test_spans_that_are_wrong_are_not_used():
    wrong = {"prompt": {"rapid_prompt": {"text": "some text", "context_spans": [["a", 2]]}}}
    assert key(wrong) == key({"prompt": "some text"})


def test_half_of_a_surrogate_pair_has_a_key():
    assert key(b'{"prompt": "\\ud800"}') is not None
