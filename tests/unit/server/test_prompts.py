"""Contexts and questions: as RAPID's fields give them, and as they are found for clients that know nothing of them."""

import base64

import pytest

from tests.toys.chat_clients import librechat, open_webui
from tests.toys.document_files import pdf
from tests.toys.repository import ROOT
from tests.toys.served import uploaded

QUESTION = "How many days of leave may be carried over?"
PASSAGES = [
    part for part in (ROOT / "examples" / "handbook.md").read_text("utf-8").split("\n\n") if 80 < len(part) < 900
][:14]
EARLIER = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day. What may I look up?"}]


def asked(client, messages, **rapid):
    fields = {"sources": True, "statistics": True, **rapid}
    answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, "rapid": fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["rapid"]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("earlier", [[], EARLIER], ids=["first turn", "later turn"])
@pytest.mark.parametrize("where", ["around", "before", "system"])
def test_open_webui_needs_to_know_nothing(client, engine, where, earlier):
    messages = open_webui(PASSAGES, QUESTION, where)
    _found(client, engine, [*messages[:-1], *earlier, messages[-1]])


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("earlier", [[], EARLIER], ids=["first turn", "later turn"])
@pytest.mark.parametrize("whole", [False, True], ids=["passages", "whole file"])
def test_librechat_needs_to_know_nothing(client, engine, whole, earlier):
    messages = librechat(PASSAGES, QUESTION, whole)
    _found(client, engine, [*messages[:-1], *earlier, messages[-1]])


def _found(client, engine, messages):
    rapid = asked(client, messages)
    assert rapid["statistics"]["segmentation"] == "delimiters" and rapid["sources"]
    prompts = engine.explain(messages)
    (context,) = prompts.target.contexts
    assert prompts.target.query == QUESTION
    assert all(passage in context for passage in PASSAGES[4:-2])  # at the edges, both models may read more
    assert "ask" not in context[:40] and "citations" not in context and "guidelines" not in context
    assert all(source["text"] in context for source in rapid["sources"])


def test_documents_stand_before_the_first_question_and_later_turns_share_them(client):
    file = uploaded(client, "\n\n".join(PASSAGES))
    first = [{"role": "user", "content": QUESTION}]
    later = [*first, {"role": "assistant", "content": "Five."}, {"role": "user", "content": "Until which day?"}]
    documents = [{"file_id": file["id"]}]
    one, two = (asked(client, messages, documents=documents)["statistics"] for messages in (first, later))
    length = len("\n\n".join(PASSAGES))  # a token is a byte
    assert one["cached_prompt_tokens"] > length and two["cached_prompt_tokens"] > length


def test_a_file_may_be_a_part_of_a_message_as_in_openais_api(client):
    file = uploaded(client, "\n\n".join(PASSAGES))
    parts = [{"type": "text", "text": QUESTION}, {"type": "file", "file": {"file_id": file["id"]}}]
    found = asked(client, [{"role": "user", "content": parts}])
    assert {source["file_id"] for source in found["sources"]} == {file["id"]}
    assert found["statistics"]["segmentation"] == "explicit"


def test_a_file_may_come_within_a_message(client):
    data = pdf("About apples. " * 30, "About pears. " * 30)
    content, in_lines = base64.b64encode(data).decode(), base64.encodebytes(data).decode().replace("\n", "\r\n")
    for data in (content, f"data:application/pdf;base64,{content}", in_lines):
        file = {"filename": "../fruit.pdf", "file_data": data}
        parts = [{"type": "file", "file": file}, {"type": "text", "text": "Which pears?"}]
        found = asked(client, [{"role": "user", "content": parts}])
        assert {(each["document"], each["file_id"]) for each in found["sources"]} == {("fruit.pdf", None)}
        assert {each["page"] for each in found["sources"]} <= {1, 2}
        assert found["statistics"]["segmentation"] == "explicit"
    assert found["statistics"]["cached_prompt_tokens"] > 500  # the same text, read before
    assert "fruit.pdf" not in client.get("/v1/files").text


def test_a_context_is_marked_in_the_message_that_has_it_or_put_in_front(client):
    context = "\n\n".join(PASSAGES)
    inside = [{"role": "user", "content": f"Read this.\n{context}\nNow tell me: {QUESTION}"}]
    found = asked(client, inside, context=context, question=QUESTION)
    assert found["statistics"]["segmentation"] == "explicit"
    assert all(context[each["start"] : each["end"]] == each["text"] for each in found["sources"])
    apart = asked(client, [{"role": "user", "content": QUESTION}], context=context)
    assert all(context[each["start"] : each["end"]] == each["text"] for each in apart["sources"])
    assert apart["statistics"]["segmentation"] == "explicit"


def test_inline_documents_have_the_names_that_they_are_given(client):
    documents = [{"text": "\n".join(PASSAGES[:7]), "name": "a.md"}, {"text": "\n".join(PASSAGES[7:]), "name": "b.md"}]
    found = asked(client, [{"role": "user", "content": QUESTION}], documents=documents)
    assert found["sources"]
    for source in found["sources"]:
        given = documents[source["index"]]
        assert source["document"] == given["name"] and source["text"] in given["text"]


def test_text_completions_take_documents_and_find_contexts(client):
    context = "\n\n".join(PASSAGES)
    prompt = f"Context:\n{context}\n\nQuestion: {QUESTION}\nAnswer:"
    for rapid in ({"statistics": True}, {"statistics": True, "context": context}):
        body = {"model": "tiny", "prompt": prompt, "rapid": rapid}
        found = client.post("/v1/completions", json=body).json()["rapid"]
        assert found["sources"]
        assert found["statistics"]["segmentation"] == ("explicit" if "context" in rapid else "delimiters")


@pytest.mark.parametrize(
    ("messages", "rapid", "code"),
    [
        ([{"role": "system", "content": "Be brief."}], {"context": "a"}, "prompt.empty_question"),
        ([{"role": "user", "content": "a"}], {"documents": [{}]}, "invalid_value"),
        ([{"role": "user", "content": "a"}], {"documents": [{"text": "a", "file_id": "b"}]}, "invalid_value"),
        ([{"role": "user", "content": "a"}], {"documents": [{"text": " "}]}, "prompt.empty_document"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}], {}, "prompt"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_data": "a"}}]}], {}, "invalid_value"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_data": "\u00e9A=="}}]}], {}, "invalid_value"),
        ([{"role": "user", "content": [{"type": "file", "file": {"filename": "a.pdf"}}]}], {}, "invalid_value"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_data": ""}}]}], {}, "document"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_data": "JVBERi0x"}}]}], {}, "document"),
    ],
)
def test_what_cannot_be_a_prompt_is_refused(client, messages, rapid, code):
    answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, "rapid": rapid})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_wrong_base64_is_not_taken_for_a_missing_file(client):
    for file, said in (({"file_data": "J_BE"}, "is no base64"), ({"filename": "a.pdf"}, "needs file.file_id")):
        parts = [{"type": "file", "file": file}, {"type": "text", "text": "Which?"}]
        message = {"role": "user", "content": parts}
        answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": [message]})
        assert answer.status_code == 400 and said in answer.json()["error"]["message"]


@pytest.mark.parametrize("rapid", [{"documents": [{"text": "a report"}]}, {"context": "a report"}])
def test_a_question_without_text_is_refused_whatever_it_carries(client, rapid):
    calls = [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]
    messages = [{"role": "user", "content": None, "tool_calls": calls}]
    answer = client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, "rapid": rapid})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "prompt.empty_question"
