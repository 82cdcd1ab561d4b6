"""The page at `/` in a real browser: documents, questions, answers, sources and passages."""

import json

import pytest

from tests.toys.asking_page import answer, ask, give, shown_text
from tests.toys.models import words
from tests.toys.served import client_of, events, running, uploaded

pytestmark = pytest.mark.browser

TEXT = f"{words(1, 150)} The zebra \U0001f993 eats grass at noon. {words(2, 150)}"
QUESTION = "What does the zebra eat?"


def asked_directly(client, file_id, *turns):
    messages = [{"role": role, "content": text} for role, text in turns]
    body = {"model": "tiny", "messages": messages, "rapid": {"documents": [{"file_id": file_id}]}}
    return client.post("/v1/chat/completions", json=body).json()


def test_a_document_is_chosen_read_and_asked_about(served, opened):
    address, client = served
    page = opened(address)
    assert page.locator("#model").inner_text().startswith("tiny")
    page.locator("#empty").wait_for()
    give(page, ("report.txt", TEXT))
    assert page.locator("#list bdi").all_inner_texts() == ["report.txt"]
    assert page.locator("#list input").is_checked()
    ask(page, QUESTION)
    (file,) = client.get("/v1/files").json()["data"]
    expected = asked_directly(client, file["id"], ("user", QUESTION))
    assert answer(page) == expected["choices"][0]["message"]["content"]

    # Each token has its origin, and the legend counts them.
    spans = page.locator(".answer .token")
    items = page.locator(".legend li:has(.chip)").evaluate_all("items => items.map(item => item.lastChild.data)")
    counted = [int(item.split()[0]) for item in items]
    # A token that is a part of a character has no text of its own.
    assert sum(counted) == expected["usage"]["completion_tokens"] >= spans.count() > 0

    # A passage is shown in its document, although the document has a character of two UTF-16 units before its end.
    sources = expected["rapid"]["sources"]
    page.locator(".source").first.click()
    mark = page.locator("#passage-text mark")
    mark.wait_for()
    whole = client.get(f"/v1/files/{file['id']}/text").json()["text"]
    assert mark.text_content() in [source["text"] for source in sources] and mark.text_content() in whole
    assert shown_text(page.locator("#passage-text")) == whole
    box, place = page.locator("#passage-text").bounding_box(), mark.bounding_box()
    assert box["y"] <= place["y"] < box["y"] + box["height"]


def test_a_follow_up_sends_the_conversation_and_its_document_was_read_before(served, opened):
    address, client = served
    page = opened(address)
    give(page, ("report.txt", TEXT))
    ask(page, QUESTION)
    bodies = []
    page.on("request", lambda sent: sent.url.endswith("completions") and bodies.append(sent.post_data_json))
    ask(page, "And at noon?")
    roles = [message["role"] for message in bodies[0]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert bodies[0]["messages"][1]["content"] == answer(page, 0)
    assert "had been read before" in page.locator(".summary").nth(1).inner_text()
    page.locator(".statistics summary").nth(1).click()
    table = page.locator(".statistics dl").nth(1)
    assert "Tokens per pass" in table.inner_text()
    page.locator("#anew").click()
    assert page.locator(".turn").count() == 0 and page.locator("#empty").is_visible()
    ask(page, QUESTION)
    assert len(bodies[1]["messages"]) == 1


def test_a_document_that_is_not_chosen_is_not_asked_about(served, opened):
    address, client = served
    uploaded(client, TEXT, "one.txt")
    uploaded(client, TEXT + " More.", "two.txt")
    page = opened(address)
    page.get_by_label("two.txt", exact=True).check()
    bodies = []
    page.on("request", lambda sent: sent.url.endswith("completions") and bodies.append(sent.post_data_json))
    ask(page, QUESTION)
    (name,) = page.locator(".turn .about bdi").all_inner_texts()
    (document,) = bodies[0]["rapid"]["documents"]
    assert name == "two.txt"
    assert client.get(f"/v1/files/{document['file_id']}").json()["filename"] == "two.txt"


def test_dropped_files_are_taken_and_deleted_ones_are_gone(served, opened):
    address, client = served
    page = opened(address)
    page.locator("#empty").wait_for()
    page.evaluate(
        """text => {
          const data = new DataTransfer();
          data.items.add(new File([text], "dropped.txt", {type: "text/plain"}));
          for (const name of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(name, {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        TEXT,
    )
    page.get_by_label("dropped.txt", exact=True).wait_for()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Delete dropped.txt").click()
    assert len(client.get("/v1/files").json()["data"]) == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete dropped.txt").click()
    page.locator("#list li").wait_for(state="detached")
    assert client.get("/v1/files").json()["data"] == []


def test_the_text_of_a_long_document_is_shown_in_parts(served, opened):
    address, client = served
    text = "".join(f"Line {number} of a long document.\n" for number in range(400))
    uploaded(client, text, "long.txt")
    page = opened(address)
    page.get_by_role("button", name="Show the text of long.txt").click()
    later = page.get_by_role("button", name="Show later text")
    later.wait_for()
    assert "Line 399 " not in page.locator("#passage-text").inner_text()
    for _ in range(6):
        if later.is_visible():
            later.click()
    assert "Line 0 " in page.locator("#passage-text").inner_text()
    assert "Line 399 " in page.locator("#passage-text").inner_text()


def test_sentences_of_an_answer_lead_to_their_sources(served, opened):
    """With an answer whose sources are known, and whose offsets count an emoji as one character."""
    address, client = served
    file = uploaded(client, TEXT, "report.txt")
    start = TEXT.index("The zebra")
    first, second = "It eats grass \U0001f33f.", " At noon."
    passage = {"start": start, "end": start + 33, "text": TEXT[start : start + 33]}
    source = {"context": 0, "label": "page 7", "score": 0.5, **passage}
    sources = [
        {**source, "answer_start": 0, "answer_end": len(first)},
        {**source, "answer_start": len(first), "answer_end": len(first + second)},
        {
            **source,
            "answer_start": len(first),
            "answer_end": len(first + second),
            "start": 0,
            "end": 9,
            "text": TEXT[:9],
        },
    ]
    token = {
        "proposer": "drafter",
        "decided": "accepted",
        "p": 0.9,
        "q": 0.8,
        "p_hat": None,
        "changed_by_retrieval": False,
    }
    pieces = [first[:6], first[6:], second]
    sent = [
        {
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
            "rapid": {"tokens": [{**token, "text": text}]},
        }
        for text in pieces
    ]
    sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "rapid": {"sources": sources}})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in sent) + "data: [DONE]\n\n"
    page = opened(address)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    page.get_by_label("report.txt", exact=True).check()
    ask(page, QUESTION)
    assert answer(page) == first + second
    children = page.locator(".answer").evaluate("box => [...box.childNodes].map(node => node.textContent)")
    assert children == [pieces[0], pieces[1], "1", second, "1", "2"]
    names = page.locator(".source .name").all_inner_texts()
    assert names == ["1. report.txt page 7", "2. report.txt page 7"]
    page.locator(".source").nth(1).hover()
    assert page.locator(".token.cited").all_text_contents() == [second]
    page.locator(".marker").first.click()
    assert page.locator("#passage-text mark").text_content() == passage["text"]
    assert page.locator("#passage-title").inner_text() == "report.txt"
    assert file["filename"] == "report.txt"


WATCH = """() => {
  window.states = [];
  const watch = () => {
    const guess = document.querySelector(".provisional")?.textContent ?? null;
    const tokens = [...document.querySelectorAll(".token")].map(token => token.textContent).join("");
    if (guess !== null) window.states.push(`${tokens}|${guess}`);
  };
  new MutationObserver(watch).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


def test_a_provisional_answer_is_confirmed_token_by_token_and_goes_with_the_first_correction(served, opened):
    address, _ = served
    token = {"proposer": "drafter", "decided": "accepted", "p": 0.9, "q": 0.8, "p_hat": None}
    sent = [{"choices": [], "rapid": {"provisional": {"text": text}}} for text in ("It eats ", "hay.")]
    for text in ("It", " eats", " grass"):
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        sent.append({"choices": [choice], "rapid": {"tokens": [{**token, "text": text}]}})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in sent) + "data: [DONE]\n\n"
    page = opened(address)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    page.evaluate(WATCH)
    ask(page, QUESTION)
    states = list(dict.fromkeys(page.evaluate("window.states")))
    assert states == ["|It eats ", "|It eats hay.", "It| eats hay.", "It eats| hay.", "It eats grass|"]
    assert answer(page) == "It eats grass" and page.locator(".provisional").count() == 0


def test_the_drafters_own_answer_is_shown_while_a_document_is_read(app_of, opened):
    app = app_of()
    with running(app) as address, client_of(address) as client:
        file = uploaded(client, words(6, 1800), "long.txt")
        app.state.rapid.engine.clear_prefix_cache()
        page = opened(address)
        page.get_by_label("long.txt", exact=True).check()
        page.evaluate(WATCH)
        ask(page, QUESTION)
        assert page.evaluate("window.states")[0].startswith("|")
        expected = asked_directly(client, file["id"], ("user", QUESTION))
        assert answer(page) == expected["choices"][0]["message"]["content"]


def test_the_events_of_a_stream_are_the_ones_the_page_reads(served):
    """The page takes these fields; should the server name them otherwise, this says so without a browser."""
    address, client = served
    file = uploaded(client, TEXT, "report.txt")
    rapid = {
        "documents": [{"file_id": file["id"]}],
        "sources": True,
        "statistics": True,
        "trace": True,
        "progress": True,
    }
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "rapid": rapid, "stream": True}
    found, ended = events(client.post("/v1/chat/completions", json=body).text)
    assert ended
    tokens = [token for event in found for token in event.get("rapid", {}).get("tokens", [])]
    assert {"text", "proposer", "decided", "p", "q", "p_hat", "changed_by_retrieval"} <= tokens[0].keys()
    last = next(event["rapid"] for event in found if "statistics" in event.get("rapid", {}))
    assert {"law", "eta", "drafted_tokens", "accepted_tokens", "tokens_per_round", "decode_tps"} <= last[
        "statistics"
    ].keys()
    assert {"start", "end", "text"} <= last["sources"][0].keys()
