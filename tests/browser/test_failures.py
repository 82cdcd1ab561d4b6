"""The page at `/` when something goes wrong: stops, errors, keys, reloads, and two tabs at once."""

import json

import pytest

from rapid_integrations.server.keys import add_key
from tests.toys.asking_page import answer, ask, give, until
from tests.toys.models import words
from tests.toys.served import running

pytestmark = pytest.mark.browser

QUESTION = "What is this about?"


def endless(route):
    """Pass a question on, and forbid the end tokens in its answer."""
    bias = {"logit_bias": {"257": -100, "259": -100}}
    route.continue_(post_data=json.dumps({**route.request.post_data_json, **bias}))


def begin_long_answer(page):
    """Ask for an answer that takes minutes, and wait for its first tokens."""
    page.route("**/v1/chat/completions", endless)
    page.locator("#ask summary").click()
    page.fill("#most", "8000")
    ask(page, QUESTION, wait=False)
    until(lambda: page.locator(".turn").last.locator(".token").count() > 2)


@pytest.mark.parametrize("way", ["button", "key"])
def test_a_stop_keeps_what_has_come_and_frees_the_server(app_of, opened, way):
    app = app_of()
    with running(app) as address:
        page = opened(address)
        begin_long_answer(page)
        assert page.locator("#send").is_hidden()
        if way == "button":
            page.locator("#stop").click()
        else:
            page.keyboard.press("Escape")
        page.get_by_text("You stopped this answer.").wait_for()
        assert answer(page) != "" and page.locator("#send").is_visible()
        until(lambda: app.state.rapid.turns.running == 0)
        page.fill("#most", "4")
        ask(page, "And then?")
        assert page.locator(".turn").count() == 2


def test_a_server_that_is_gone_is_named_and_the_question_can_be_asked_again(app_of, opened):
    with running(app_of()) as address:
        page = opened(address)
        ask(page, QUESTION)
        page.context.set_offline(True)
        ask(page, "And now?")
        notice = page.locator(".turn .notice").inner_text()
        assert "The server cannot be reached" in notice
        page.context.set_offline(False)
        page.get_by_role("button", name="Ask again").click()
        page.locator(".turn .notice").wait_for(state="detached")
        page.locator(".turn").nth(1).locator(".summary").first.wait_for()
        assert page.locator(".turn h2").all_inner_texts() == [QUESTION, "And now?"]


def test_errors_are_told_in_plain_words(app_of, opened):
    with running(app_of(max_running=1, max_waiting=0)) as address:
        page = opened(address)
        page.set_input_files("#files", [{"name": "empty.txt", "mimeType": "text/plain", "buffer": b"  "}])
        page.locator("#list .wrong").wait_for()
        assert page.locator("#list .wrong").inner_text() == "It is empty: there is nothing to answer from"
        assert page.locator("#list input").is_disabled()
        page.locator("#ask summary").click()
        page.fill("#most", "40000")  # more than the context window
        ask(page, QUESTION)
        assert "That is too long for this model" in page.locator(".turn .notice").inner_text()
        page.locator("#ask summary").click()
        page.locator("#anew").click()
        other = opened(address)
        begin_long_answer(page)
        ask(other, QUESTION)
        assert "The server is busy" in other.locator(".turn .notice").inner_text()
        page.locator("#stop").click()


def test_a_refused_upload_is_named(app_of, opened):
    with running(app_of(max_file_bytes=1000)) as address:
        page = opened(address)
        page.locator("#empty").wait_for()
        page.set_input_files("#files", [{"name": "big.txt", "mimeType": "text/plain", "buffer": b"x" * 1001}])
        page.locator("#notice").wait_for()
        assert "big.txt: The document cannot be kept" in page.locator("#notice").inner_text()
        page.locator("#notice button").click()
        assert page.locator("#notice").is_hidden()


def test_a_key_is_asked_for(app_of, opened, tmp_path):
    key = add_key(tmp_path / "keys", "mine")
    with running(app_of(api_keys=tmp_path / "keys")) as address:
        page = opened(address)
        for given in ("wrong", key):
            page.locator("#key[open]").wait_for()
            page.fill("#key-value", given)
            page.keyboard.press("Enter")
        page.locator("#key").wait_for(state="hidden")
        give(page, ("a.txt", words(4, 40)))
        ask(page, QUESTION)
        assert answer(page) != ""
        page.reload()
        page.locator(".turn").wait_for()
        assert page.locator("#key").is_hidden()
        assert key not in page.content()


def test_a_conversation_outlives_a_reload_and_an_unfinished_answer_says_so(app_of, opened):
    app = app_of()
    with running(app) as address:
        page = opened(address)
        give(page, ("a.txt", words(4, 60)))
        ask(page, QUESTION)
        before = answer(page), page.locator(".legend").inner_text(), page.locator(".source .text").all_inner_texts()
        page.reload()
        page.locator(".turn").wait_for()
        page.get_by_label("a.txt", exact=True).wait_for()
        after = answer(page), page.locator(".legend").inner_text(), page.locator(".source .text").all_inner_texts()
        assert after == before and page.get_by_label("a.txt", exact=True).is_checked()
        begin_long_answer(page)
        page.reload()
        page.get_by_text("The page was left or loaded again").wait_for()
        assert answer(page, 1) != ""
        until(lambda: app.state.rapid.turns.running == 0)
        page.get_by_role("button", name="Ask again").click()
        until(lambda: page.locator(".summary").count() == 2)
        assert page.locator(".turn").count() == 2


def test_two_tabs_share_documents_and_have_conversations_of_their_own(app_of, opened):
    with running(app_of()) as address:
        one = opened(address)
        two = opened(address, one.context)
        give(one, ("shared.txt", words(5, 60)))
        two.get_by_label("shared.txt", exact=True).check()
        ask(one, "One?", wait=False)
        ask(two, "Two?", wait=False)
        for page, question in ((one, "One?"), (two, "Two?")):
            page.locator(".summary").first.wait_for()
            assert page.locator(".turn h2").all_inner_texts() == [question]
            assert answer(page) != ""
        one.once("dialog", lambda dialog: dialog.accept())
        one.get_by_role("button", name="Delete shared.txt").click()
        two.locator("#list li").wait_for(state="detached")
        two.reload()
        two.locator(".turn").wait_for()
        assert two.locator(".turn h2").all_inner_texts() == ["Two?"]
