"""Documents that are read before the first question about them."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from rapid_integrations import (
    ConfigurationError,
    ContextOverflowError,
    Document,
    EngineClosedError,
    OutOfMemoryError,
    Prompt,
    PromptError,
    SamplingParams,
)
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.jobs import until
from tests.toys.leaks import settled
from tests.toys.models import words
from tests.toys.prefix_requests import DOCUMENT, about, assert_entries_are_right, engine
from tests.toys.readers import Readers

pytestmark = pytest.mark.long  # each reads documents in several engines
TWO = [Document(text=words(3, 90), source="a/first.md"), Document(text=words(4, 90), source="second.md")]
SYSTEM = {"role": "system", "content": "Answer briefly."}


def as_messages(texts, question):
    return [SYSTEM, {"role": "user", "content": Prompt.from_context(texts, question)}]


@pytest.mark.parametrize("drafter", [None, "qwen2"])
def test_the_first_question_reads_only_what_is_new(drafter):
    embedder = HashEmbedder()
    with engine(drafter=drafter, embedder=embedder) as shared, engine(drafter=drafter, prefix_cache_bytes=0) as without:
        done = shared.read(DOCUMENT)
        assert done.tokens > len(DOCUMENT) and done.cached_tokens == 0 and done.in_memory and not done.on_disk
        assert done.kv_bytes == shared.target.kv_bytes_per_token * done.tokens and done.seconds > 0
        embedded = list(embedder.embedded)
        assert embedded
        for question in ("which words?", "What else?", "7?"):
            answer = shared.generate(about(DOCUMENT, question))
            assert answer.token_ids == without.generate(about(DOCUMENT, question)).token_ids
            assert answer.stats.cached_prompt_tokens >= done.tokens
        assert embedder.embedded == embedded
        assert_entries_are_right(shared)
        assert shared.read(DOCUMENT).cached_tokens == done.tokens


def test_exactly_what_every_question_begins_with_is_read():
    with engine() as shared:
        done = shared.read(DOCUMENT)
        prompts = [shared.explain(about(DOCUMENT, question)).target_ids for question in ("a?", "b?")]
        same = next(i for i, (a, b) in enumerate(zip(*prompts, strict=False)) if a != b)
        (entry,) = shared._prefixes.memory._entries
        assert list(entry.token_ids) == prompts[0][: done.tokens] and done.tokens == same


def test_several_documents_have_the_form_of_rapid_ask():
    with engine() as shared:
        done = shared.read(TWO)
        texts = [each.text for each in TWO]
        named = shared.generate(Prompt.from_context(texts, "which?", names=["first.md", "second.md"]))
        assert named.stats.cached_prompt_tokens >= done.tokens
        swapped = shared.generate(Prompt.from_context(texts[::-1], "which?", names=["second.md", "first.md"]))
        assert swapped.stats.cached_prompt_tokens < 200


def test_a_longer_list_goes_on_behind_a_shorter_one():
    texts = [each.text for each in TWO]
    with engine() as shared:
        one = shared.read(texts[:1])
        both = shared.read(texts)
        assert both.cached_tokens >= one.tokens - len("\n\nQuestion: ") and both.cached_tokens < both.tokens


def test_another_form_of_prompt_is_read_as_it_is_asked():
    with engine() as shared:
        done = shared.read(DOCUMENT, prompt=as_messages)
        answer = shared.generate(as_messages([DOCUMENT], "which?"))
        assert answer.stats.cached_prompt_tokens >= done.tokens > len(DOCUMENT)
        assert shared.generate(about(DOCUMENT, "which?")).stats.cached_prompt_tokens < 100


@pytest.mark.parametrize(
    "form",
    [
        lambda texts, question: f"{question}\n\n{texts[0]}",
        lambda texts, question: Prompt(text=f"{question}\n\n{texts[0]}"),
        lambda texts, question: [{"role": "user", "content": f"Question: {question}\n\nContext: {texts[0]}"}],
        lambda texts, question: [{"role": "system", "content": question}, {"role": "user", "content": texts[0]}],
    ],
    ids=["a text", "a prompt", "a message", "a system message"],
)
def test_a_question_before_a_document_that_is_not_marked_is_refused(form):
    with engine() as shared:
        with pytest.raises(PromptError, check=coded("prompt.question_first")):
            shared.read(DOCUMENT, prompt=form)
        behind = shared.read(DOCUMENT, prompt=lambda texts, question: f"{texts[0]}\n\n{question}")
        assert behind.tokens > len(DOCUMENT)


@pytest.mark.parametrize(
    "given", [None, 5, b"text", {"a": "text"}, ["text", None], ["text", Path("report.md")]], ids=str
)
def test_what_is_no_document_is_refused(given):
    with engine() as shared:
        with pytest.raises(PromptError, match="documents are texts", check=coded("prompt.no_document")):
            shared.read(given)
        with pytest.raises(PromptError, match="prompt=... returned None"):
            shared.read(DOCUMENT, prompt=lambda texts, question: None)


def test_what_cannot_be_read_ahead_is_refused():
    with engine() as shared:
        with pytest.raises(PromptError, check=coded("prompt.question_first")):
            shared.read(
                DOCUMENT, prompt=lambda texts, question: Prompt.from_context(texts, question, "{query} {context}")
            )
        with pytest.raises(PromptError, check=coded("prompt.empty_document")):
            shared.read(" ")
        with pytest.raises(ContextOverflowError):
            shared.read(words(1, 2000))
        assert len(shared._prefixes.memory) == 0
    with pytest.raises(EngineClosedError):
        shared.read(DOCUMENT)
    nothing_kept, too_large = coded("configuration.nothing_kept"), coded("out_of_memory.kv_budget")
    with engine(prefix_cache_bytes=0) as without, pytest.raises(ConfigurationError, check=nothing_kept):
        without.read(DOCUMENT)
    with engine(kv_cache_bytes=2**16) as small, pytest.raises(OutOfMemoryError, check=too_large):
        small.read(DOCUMENT)


def test_a_short_document_is_read_by_both_models():
    short = words(1, 10)
    with engine(drafter="qwen2") as shared:
        done = shared.read(short)
        stats = shared.generate(about(short, "which?")).stats
        assert stats.retrieval == "whole"
        assert min(stats.cached_prompt_tokens, stats.cached_drafter_tokens) >= done.tokens


def test_it_is_on_disk_when_the_call_returns(tmp_path):
    with engine(prefix_cache_dir=tmp_path, prefix_cache_bytes=0) as shared:
        documents = [words(seed, 100) for seed in range(4)]  # more than may wait to be written
        assert all(shared.read(document).on_disk for document in documents)
        assert len(list(tmp_path.glob("*.safetensors"))) == 4
    with engine(prefix_cache_dir=tmp_path) as fresh:
        for document in documents:
            assert fresh.generate(about(document, "which?")).stats.cached_prompt_tokens > len(document)


def test_aread_leaves_the_loop_free_and_can_be_cancelled():
    stages = []

    async def both(shared):
        loop = asyncio.get_running_loop()
        done = await shared.aread(DOCUMENT, on_progress=lambda *at: stages.append(at))
        for stage in ("embed", "read ahead"):  # while it is indexed, and while it is read
            begun = asyncio.Event()

            def report(now, *_, stage=stage, begun=begun):
                if now == stage:
                    loop.call_soon_threadsafe(begun.set)

            running = asyncio.ensure_future(shared.aread(words(9, 400), on_progress=report))
            await begun.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        return done, await shared.agenerate(about(DOCUMENT, "which?"))

    with engine() as shared:
        done, answer = asyncio.run(both(shared))
        assert answer.stats.cached_prompt_tokens >= done.tokens
        assert [each for each in stages if each[0] == "read ahead"][-1] == ("read ahead", done.tokens, done.tokens)
        assert settled(lambda: shared.running_requests + shared.waiting_requests, 0) == 0


def test_a_question_does_not_wait_for_another_document(monkeypatch):
    monkeypatch.setattr("rapid_integrations.decoding.reader.PREFILL_CHUNK", 64)
    with engine() as shared:
        reads = []
        Readers(shared, monkeypatch).wait_for(2)  # the document is not read before the question has come

        def report(stage, done, total):
            reads.append((done, total))

        reading = threading.Thread(target=lambda: shared.read(words(5, 500), on_progress=report), daemon=True)
        reading.start()
        until(lambda: shared.running_requests == 1)
        shared.generate(about(words(6, 100), "which?"))
        done, total = reads[-1]
        assert done < total
        reading.join(60)
        assert reads[-1][0] == total


class Gated:
    """Counts the rows of a model's passes, and holds some of them back until they are let go."""

    def __init__(self, model, *held):
        self.rows, self.passes, self._forward = 0, 0, model.forward
        self.reached = {number: threading.Event() for number in held}
        self.go = {number: threading.Event() for number in held}
        model.forward = self._counted

    def _counted(self, rows):
        self.passes += 1
        self.rows += sum(each.count for each in rows)
        if (number := self.passes) in self.go:
            self.reached[number].set()
            self.go[number].wait()
        return self._forward(rows)


@pytest.mark.parametrize("ends", ["when it is read", "when it is cancelled"])
def test_what_a_question_waits_for_is_not_read_again(monkeypatch, ends):
    monkeypatch.setattr("rapid_integrations.decoding.reader.PREFILL_CHUNK", 64)
    text = words(5, 200)
    with engine(drafter="qwen2", sampling=SamplingParams(max_new_tokens=2)) as shared:
        gated = Gated(shared.target, 2, 6)
        if ends == "when it is read":
            first = threading.Thread(target=lambda: shared.read(text))
            gated.go[6].set()
        else:
            stream = shared.stream(about(text, "Which?"))
            first = threading.Thread(target=lambda: list(stream))
        answers = []
        second = threading.Thread(target=lambda: answers.append(shared.generate(about(text, "And who?"))))
        first.start()
        gated.reached[2].wait()
        second.start()
        while shared.waiting_requests == 0:  # it begins behind this pass, and waits for the first one
            time.sleep(0.01)
        gated.go[2].set()
        if ends == "when it is cancelled":
            gated.reached[6].wait()
            stream.cancel()
            gated.go[6].set()
        first.join()
        second.join()
        assert gated.rows < answers[0].usage.prompt_tokens + 100
        assert answers[0].stats.cached_prompt_tokens > 300
        assert_entries_are_right(shared)
    with engine(drafter="qwen2", sampling=SamplingParams(max_new_tokens=2), prefix_cache_bytes=0) as without:
        assert answers[0].token_ids == without.generate(about(text, "And who?")).token_ids
