"""Chat and text completions over HTTP, by a real server on loopback."""

import pytest

from tests.toys.models import words
from tests.toys.served import events, uploaded
from tests.toys.server_app import HELLO

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def asked(client, path=CHAT, **fields):
    first = {"messages": HELLO} if path == CHAT else {"prompt": "Hello"}
    return client.post(path, json={"model": "tiny", **first, **fields})


def test_a_chat_is_answered_as_the_engine_answers(client, engine):
    found = asked(client).json()
    expected = engine.generate(HELLO)
    assert found["object"] == "chat.completion" and found["model"] == "tiny"
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert choice["finish_reason"] == "length"
    assert found["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert found["usage"]["total_tokens"] == expected.usage.total_tokens
    assert "rapid" not in found


def test_a_stream_holds_the_same_answer(client):
    whole = asked(client).json()["choices"][0]["message"]["content"]
    answer = asked(client, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found, ended = events(answer.text)
    assert ended
    deltas = [each["choices"][0]["delta"] for each in found if each["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole
    assert [each["choices"][0]["finish_reason"] for each in found if each["choices"]][-2:] == [None, "length"]
    assert found[-1]["choices"] == [] and found[-1]["usage"]["completion_tokens"] == 12
    assert {each["id"] for each in found} == {found[0]["id"]}


def test_documents_are_read_once_and_named_as_sources(client):
    file = uploaded(client, words(1, 400))
    assert file["status"] == "processed" and file["rapid"]["read"]
    question = [{"role": "user", "content": "Which words are there?"}]
    found = asked(client, messages=question, rapid={"documents": [{"file_id": file["id"]}], "statistics": True}).json()
    stats, sources = found["rapid"]["statistics"], found["rapid"]["sources"]
    assert stats["cached_prompt_tokens"] > 2000 and stats["segmentation"] == "explicit"
    assert sources and {each["document"] for each in sources} == {"report.txt"}
    text = client.get(f"/v1/files/{file['id']}/text").json()["text"]
    assert all(text[each["start"] : each["end"]] == each["text"] for each in sources)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"temprature": 1}, 400, "unknown_parameter", "temprature"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "prompt.empty", None),
        ({"max_tokens": 100_000}, 400, "context_length_exceeded", None),
        ({"rapid": {"documents": [{"file_id": "../../etc/passwd"}]}}, 404, "file_not_found", "file_id"),
        ({"n": 9}, 400, "too_many_choices", "n"),
    ],
)
def test_errors_are_openais(client, fields, status, code, param):
    for stream in (False, True):
        answer = asked(client, stream=stream, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error" and error["message"]


def test_text_completions(client, engine):
    found = asked(client, TEXT, prompt=["ab", "cd"], n=2, echo=True, seed=1, temperature=1.0).json()
    texts = [choice["text"] for choice in found["choices"]]
    assert [text[:2] for text in texts] == ["ab", "ab", "cd", "cd"]
    assert texts[0] != texts[1] and [choice["index"] for choice in found["choices"]] == [0, 1, 2, 3]
    assert found["usage"]["prompt_tokens"] == 4
    alone = asked(client, TEXT, prompt="ab", seed=2, temperature=1.0).json()["choices"][0]["text"]
    assert texts[1] == "ab" + alone  # the second answer's seed is the next one
