"""Chat and text completions over HTTP, by a real server on loopback."""

import math

import pytest

from rapid_integrations.config import SpeculationConfig
from rapid_integrations.prompt import Prompt
from tests.toys.chat_templates import GPT_OSS
from tests.toys.models import words
from tests.toys.served import client_of, events, running, tiny_engine, uploaded
from tests.toys.server_app import HELLO
from tests.toys.thinking import EMPTY, OFF, switched_engine

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
        ({"min_tokens": 9, "max_tokens": 8}, 400, "configuration.wrong_value", None),
        ({"min_tokens": -1}, 400, "invalid_value", "min_tokens"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, 400, "prompt.empty", None),
        ({"max_tokens": 100_000}, 400, "context_length_exceeded", None),
        ({"rapid": {"documents": [{"file_id": "../../etc/passwd"}]}}, 404, "file_not_found", "file_id"),
        ({"n": 9}, 400, "too_many_choices", "n"),
        ({"stop": ["a", 1]}, 400, "invalid_value", "stop.1"),
        ({"tool_choice": "sometimes"}, 400, "invalid_value", "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, 400, "invalid_value", "tool_choice.type"),
        ({"top_logprobs": 3}, 400, "invalid_value", "top_logprobs"),
        ({"messages": [{"role": "nobody", "content": "a"}]}, 400, "invalid_value", "messages.0.role"),
        ({"messages": [{"content": "a"}]}, 400, "missing_required_parameter", "messages.0.role"),
        ({"rapid": {"documents": [{"txt": "a"}]}}, 400, "unknown_parameter", "rapid.documents.0.txt"),
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


def test_a_prompts_log_probabilities_are_not_left_out_in_silence(client):
    refused = asked(client, TEXT, prompt="ab", echo=True, logprobs=1)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "logprobs"
    assert asked(client, TEXT, prompt="ab", echo=False, logprobs=1).status_code == 200


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["target", "augmented"])
def test_log_probabilities_are_those_of_the_law(client, engine, law):
    document = words(11, 400)
    messages = [{"role": "user", "content": "Which words are there?"}]
    rapid = {"documents": [{"text": document, "name": "a"}], "law": law, "trace": True}
    options = {"messages": messages, "logprobs": True, "top_logprobs": 5, "rapid": rapid}
    whole = asked(client, **options).json()
    entries = whole["choices"][0]["logprobs"]["content"]
    prompt = Prompt.from_context([document], messages[0]["content"], names=["a"])
    trace = engine.generate(prompt, speculation=SpeculationConfig(law=law), trace=True, trace_candidates=5).trace
    assert [entry["token"] for entry in entries] == [token.token for token in trace.tokens]
    for entry, token, shown in zip(entries, trace.tokens, whole["rapid"]["tokens"], strict=True):
        followed, best = (token.p, token.top_p) if law == "target" else (token.p_hat, token.top_p_hat)
        assert math.isclose(entry["logprob"], math.log(followed), abs_tol=1e-3)
        assert [each["token"] for each in entry["top_logprobs"]] == [each.token for each in best]
        assert shown["text"] == token.text and (shown["proposer"] is None) == (shown["decided"] != "accepted")
    found, _ = events(asked(client, stream=True, **options).text)
    choices = [each["choices"][0] for each in found if each["choices"]]
    streamed = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert [entry["token"] for entry in streamed] == [entry["token"] for entry in entries]
    texts = [token["text"] for each in found for token in each.get("rapid", {}).get("tokens", [])]
    said = whole["choices"][0]["message"]["content"]
    assert "".join(texts).rstrip("\ufffd") == said.rstrip("\ufffd")  # a character may have begun at the end


def test_an_answer_is_the_bytes_of_its_tokens(client):
    """Also of tokens that are a part of a character, which have no text of their own."""
    options = {
        "messages": [{"role": "user", "content": "Hi 😀"}],
        "logprobs": True,
        "top_logprobs": 2,
        "max_tokens": 60,
    }
    choice = asked(client, temperature=2.0, seed=3, **options).json()["choices"][0]
    entries = choice["logprobs"]["content"]
    parts = [entry for entry in entries if entry["token"] == "\ufffd"]
    assert parts and all(len(entry["bytes"]) == 1 for entry in parts)
    assert all(best["bytes"] for entry in entries for best in entry["top_logprobs"])
    text = bytes(byte for entry in entries for byte in entry["bytes"]).decode(errors="replace")
    assert text.rstrip("\ufffd") == choice["message"]["content"].rstrip("\ufffd")


def test_a_context_that_is_all_of_the_message(client):
    document = words(12, 400)
    for told, segmentation in (("Summarize.", "plain"), ("Which words are there?", "explicit")):
        messages = [{"role": "system", "content": told}, {"role": "user", "content": document}]
        found = asked(client, messages=messages, rapid={"context": document, "statistics": True})
        assert found.status_code == 200, found.text
        assert found.json()["rapid"]["statistics"]["segmentation"] == segmentation


def test_an_answer_without_a_given_length_is_fitted_into_the_window(app_of):
    text, no_end = "a" * 251, {"257": -100, "259": -100}
    with tiny_engine(window=256) as small, running(app_of(engine=small)) as address, client_of(address) as client:
        found = asked(client, TEXT, prompt=text, logit_bias=no_end).json()
        assert found["usage"]["completion_tokens"] == 5 and found["choices"][0]["finish_reason"] == "length"
        refused = asked(client, TEXT, prompt=text, max_tokens=12)
        assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_an_answer_does_not_end_before_a_given_length(client, app_of):
    likely = {"257": 100, "259": 100}  # the model's ends

    def written(path=CHAT, **fields):
        found = asked(client, path, logit_bias=likely, max_tokens=9, **fields).json()
        return found["usage"]["completion_tokens"], found["choices"][0]["finish_reason"]

    assert written() == (1, "stop")
    assert written(min_tokens=4) == written(TEXT, min_tokens=4) == (5, "stop")
    assert written(ignore_eos=True) == written(TEXT, ignore_eos=True) == (9, "length")
    assert written(ignore_eos=False, min_tokens=0) == (1, "stop")
    with tiny_engine(window=256) as small, running(app_of(engine=small)) as address, client_of(address) as other:
        fitted = asked(other, TEXT, prompt="a" * 251, logit_bias=likely, ignore_eos=True).json()
        assert fitted["usage"]["completion_tokens"] == 5 and fitted["choices"][0]["finish_reason"] == "length"


def test_a_seed_repeats_answers_and_each_choice_has_its_own(client):
    def texts(**options):
        return [choice["text"] for choice in asked(client, TEXT, temperature=1.5, **options).json()["choices"]]

    assert texts(n=3, seed=5) == texts(n=3, seed=5) == [*texts(seed=5), *texts(seed=6), *texts(seed=7)]
    assert len(set(texts(n=3, seed=5))) == 3
    assert texts(seed=-1)


def test_a_stop_string_ends_an_answer(client):
    said = asked(client).json()["choices"][0]["message"]["content"]
    stop = said[len(said) // 2]
    for given in (stop, [stop, "never"]):
        found = asked(client, stop=given).json()["choices"][0]
        assert found["message"]["content"] == said[: said.index(stop)] and found["finish_reason"] == "stop"


def test_statistics_and_sources_only_come_to_those_who_ask(client):
    assert "rapid" not in asked(client).json()
    found, _ = events(asked(client, stream=True).text)
    assert not any("rapid" in each for each in found)
    both = asked(client, n=2, rapid={"statistics": True}).json()
    assert "rapid" not in both and all(choice["rapid"]["statistics"]["tokens"] for choice in both["choices"])


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
        {"response_format": {"type": "json_schema"}},
        {"rapid": {"law": "paper", "proposer": "none"}},
        {"rapid": {"proposer": "nobody"}},
        {"rapid": {"eta": -1}},
        {"rapid": {"unknown": 1}},
        {"stop": ""},
        {"top_logprobs": 21, "logprobs": True},
        {"messages": [{"role": "nobody", "content": "a"}]},
    ],
)
def test_what_the_model_or_the_engine_cannot_do_is_refused(client, fields):
    answer = asked(client, **fields)
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_a_wrong_base_url_and_the_responses_api_are_told_the_way_out(client):
    assert "ends with /v1" in client.post("/chat/completions", json={}).json()["error"]["message"]
    refused = client.post("/v1/responses", json={"model": "tiny", "input": "Hello"})
    assert refused.status_code == 404 and "use_responses_api=False" in refused.json()["error"]["message"]


# --- arguments of the chat template -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"chat_template_kwargs": OFF}, "configuration.unknown_name", "chat_template_kwargs"),
        ({"rapid": {"chat_template_kwargs": OFF}}, "configuration.unknown_name", "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tools": []}}, "configuration.reserved_name", "chat_template_kwargs"),
        ({"chat_template_kwargs": ["enable_thinking"]}, "invalid_value", "chat_template_kwargs"),
        ({"chat_template_kwarg": OFF}, "unknown_parameter", "chat_template_kwarg"),
        ({"reasoning_effort": "low"}, "unknown_parameter", "reasoning_effort"),
        (
            {"chat_template_kwargs": OFF, "rapid": {"chat_template_kwargs": OFF}},
            "invalid_value",
            "rapid.chat_template_kwargs",
        ),
    ],
)
def test_what_the_template_does_not_read_is_refused(client, fields, code, param):
    for stream in (False, True):
        answer = asked(client, stream=stream, **fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param), answer.text


def test_a_client_switches_thinking_off(app_of):
    with switched_engine() as engine, running(app_of(engine=engine)) as address, client_of(address) as client:
        plain, off = (engine.generate(HELLO, chat_template_kwargs=given) for given in (None, OFF))
        assert plain.text != off.text and off.usage.prompt_tokens == plain.usage.prompt_tokens + len(EMPTY)
        for fields, expected in (
            ({}, plain),
            ({"chat_template_kwargs": {}}, plain),
            ({"chat_template_kwargs": OFF}, off),
            ({"rapid": {"chat_template_kwargs": OFF}}, off),
        ):
            found = asked(client, **fields).json()
            assert found["choices"][0]["message"]["content"] == expected.text
            assert found["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
        pieces, _ = events(asked(client, stream=True, chat_template_kwargs=OFF).text)
        assert "".join(each["choices"][0]["delta"].get("content", "") for each in pieces) == off.text
        refused = asked(client, path=TEXT, rapid={"chat_template_kwargs": OFF})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "configuration.no_chat_template"


def test_a_document_that_a_server_has_read_is_found_by_a_client_with_arguments(app_of):
    with switched_engine() as engine, running(app_of(engine=engine)) as address, client_of(address) as client:
        file = uploaded(client, words(1, 200))
        rapid = {"documents": [{"file_id": file["id"]}], "statistics": True}
        stats = asked(client, rapid=rapid, chat_template_kwargs=OFF).json()["rapid"]["statistics"]
        assert stats["cached_prompt_tokens"] > 1000


def test_a_level_of_reasoning_is_given_to_a_template_that_reads_it(app_of):
    with switched_engine(GPT_OSS) as engine, running(app_of(engine=engine)) as address, client_of(address) as client:
        expected = engine.generate(HELLO, chat_template_kwargs={"reasoning_effort": "high"})
        default = engine.generate(HELLO)
        for fields in (
            {"reasoning_effort": "high"},
            {"chat_template_kwargs": {"reasoning_effort": "high"}},
            {"reasoning_effort": "high", "chat_template_kwargs": {"reasoning_effort": "high"}},
        ):
            found = asked(client, **fields).json()
            assert found["choices"][0]["message"]["content"] == expected.text != default.text
        twice = asked(client, reasoning_effort="high", chat_template_kwargs={"reasoning_effort": "low"})
        assert twice.status_code == 400 and twice.json()["error"]["param"] == "reasoning_effort"
