"""Running answers: the drafter's own one comes while the target reads."""

import pytest

from tests.toys.models import words
from tests.toys.served import events

CHAT = "/v1/chat/completions"


def body(seed, **rapid):
    given = {"documents": [{"text": words(seed, 900)}], **rapid}
    question = [{"role": "user", "content": "Which words?"}]
    return {"model": "tiny", "messages": question, "stream": True, "rapid": given}


def answered(found):
    return "".join(event["choices"][0]["delta"].get("content", "") for event in found if event["choices"])


def guesses(found):
    return [event["rapid"]["provisional"]["text"] for event in found if "provisional" in event.get("rapid", {})]


def test_a_provisional_answer_comes_first_and_changes_nothing(client, engine):
    found, ended = events(client.post(CHAT, json=body(11, provisional=True)).text)
    assert ended and "".join(guesses(found)) != ""
    kinds = ["guess" if guesses([event]) else "piece" if answered([event]) else "" for event in found]
    kinds = [kind for kind in kinds if kind]
    assert kinds == sorted(kinds) and set(kinds) == {"guess", "piece"}
    engine.clear_prefix_cache()
    plain, _ = events(client.post(CHAT, json=body(11)).text)
    assert answered(plain) == answered(found) and guesses(plain) == []


def test_a_document_that_was_read_needs_none(client):
    for expected in (True, False):
        found, _ = events(client.post(CHAT, json=body(12, provisional=True)).text)
        assert bool(guesses(found)) == expected


@pytest.mark.parametrize("change", [{"stream": False}, {"response_format": {"type": "json_object"}, "max_tokens": 4}])
def test_where_it_cannot_be_shown_there_is_none(client, change):
    answer = client.post(CHAT, json={**body(13, provisional=True), **change})
    assert answer.status_code == 200 and "provisional" not in answer.text
