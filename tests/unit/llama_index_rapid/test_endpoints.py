"""The endpoints of the LLM class: what each promises, its asynchronous twin, and its accidents."""

import asyncio
import gc
import subprocess
import sys
import threading

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.callbacks import (
    CallbackManager,
    CBEventType,
    EventPayload,
    LlamaDebugHandler,
    TokenCountingHandler,
)
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import ChatMessage
from llama_index_instrumentation import get_dispatcher

from llama_index_rapid import RapidLLM
from rapid_integrations import ConfigurationError, ContextOverflowError, PromptError, RapidEngine
from tests.toys.event_loop import answered_while_the_loop_turns
from tests.toys.held_passes import HeldPasses, eventually
from tests.toys.llama_index_llms import make_llm
from tests.toys.llama_index_parts import DOCUMENT, PARAGRAPHS
from tests.toys.models import byte_tokenizer, tiny_model

TEXT = f"Context:\n{DOCUMENT}\n\nQuestion: What about {PARAGRAPHS[4][11:60]}?"
MESSAGES = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=TEXT)]


class Events(BaseEventHandler):
    """Names of the events, in order."""

    seen: list[str] = []

    @classmethod
    def class_name(cls):
        return "Events"

    def handle(self, event, **kwargs):
        self.seen.append(event.class_name())


@pytest.fixture(scope="module")
def llm():
    """One whose answer to `TEXT` is as long as it may be."""
    return make_llm(model=tiny_model("llama", 0, max_position_embeddings=8192))


@pytest.fixture
def events():
    handler, root = Events(seen=[]), get_dispatcher()
    root.add_event_handler(handler)
    yield handler.seen
    root.event_handlers.remove(handler)


# --- one answer in eight forms --------------------------------------------------------------------------------------


async def test_the_completion_forms_agree(llm):
    expected = llm.complete(TEXT)
    pieces = list(llm.stream_complete(TEXT))
    assert "".join(piece.delta for piece in pieces) == expected.text == pieces[-1].text
    assert all(piece.text.startswith(before.text) for before, piece in zip(pieces, pieces[1:], strict=False))
    assert (await llm.acomplete(TEXT)).text == expected.text
    assert [piece.text async for piece in await llm.astream_complete(TEXT)][-1] == expected.text


async def test_the_chat_forms_agree(llm):
    expected = llm.chat(MESSAGES).message.content
    pieces = list(llm.stream_chat(MESSAGES))
    assert "".join(piece.delta for piece in pieces) == expected == pieces[-1].message.content
    assert (await llm.achat(MESSAGES)).message.content == expected
    assert [piece.message.content async for piece in await llm.astream_chat(MESSAGES)][-1] == expected


async def test_the_predict_forms_agree(llm, base_llm):
    template = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
    arguments = {"context_str": DOCUMENT, "query_str": "which?"}
    for model in (llm, base_llm):
        expected = model.predict(template, **arguments)
        assert "".join(model.stream(template, **arguments)) == expected
        assert await model.apredict(template, **arguments) == expected
        assert "".join([piece async for piece in await model.astream(template, **arguments)]) == expected


def test_raw_has_usage_and_statistics(llm):
    for raw in (llm.complete(TEXT).raw, list(llm.stream_chat(MESSAGES))[-1].raw):
        usage, stats = raw["usage"], raw["stats"]
        assert usage["prompt_tokens"] > usage["drafter_prompt_tokens"] > 0 and usage["completion_tokens"] <= 12
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert (
            stats["law"] == "augmented" and stats["segmentation"] == "delimiters" and stats["retrieval"] == "embedder"
        )
        assert 0 <= stats["acceptance_rate"] <= 1 and raw["finish_reason"] == "length" and raw["retrieved"]


def test_the_prompt_is_told_from_a_formatted_one(llm, given):
    llm.complete("hello")
    llm.complete("hello", formatted=True)
    assert given[0].target.text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert given[1].target.text == "hello"
    assert given[0].target_ids.count(256) == 0  # the template wrote the control tokens: no second BOS


def test_prompt_writers_of_ones_own(given):
    llm = make_llm(
        completion_to_prompt=lambda text: f"<<{text}>>",
        messages_to_prompt=lambda messages: "|".join(message.content for message in messages),
    )
    llm.complete("hello")
    list(llm.stream_complete("hello"))
    llm.chat(MESSAGES)
    assert [request.target.text for request in given] == ["<<hello>>", "<<hello>>", f"Be brief.|{TEXT}"]


def test_a_base_model_reads_a_conversation_as_text(base_llm, given):
    base_llm.chat([ChatMessage(role="user", content="hello")])
    assert given[0].target.text == "user: hello\nassistant: " and not base_llm.metadata.is_chat_model


def test_settings_of_a_single_call(llm):
    whole = llm.complete(TEXT).text
    assert llm.complete(TEXT, max_tokens=3).raw["usage"]["completion_tokens"] == 3
    assert llm.complete(TEXT, law="target").raw["stats"]["law"] == "target"
    stop = whole[4:6]
    stopped = llm.complete(TEXT, stop=[stop])
    assert stopped.text == whole[: whole.index(stop)] and stopped.raw["finish_reason"] == "stop"
    sampled = {llm.complete(TEXT, temperature=1.5, seed=seed).text for seed in range(4)}
    assert len(sampled) > 1 and llm.complete(TEXT).text == whole
    with pytest.raises(ConfigurationError, match="no option 'temprature' for a call"):
        llm.complete(TEXT, temprature=1)
    with pytest.raises(ConfigurationError, match="top_p=2"):
        llm.stream_chat(MESSAGES, top_p=2)


def test_metadata_is_read_from_the_model(llm):
    metadata = llm.metadata
    assert 8192 - 64 < metadata.context_window < 8192 and metadata.num_output == 12
    assert metadata.is_chat_model and not metadata.is_function_calling_model
    assert make_llm(context_window=1000).metadata.context_window < 1000


def test_the_targets_tokenizer_counts(llm, monkeypatch):
    import llama_index.core
    from llama_index.core.utils import get_tokenizer

    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    get_tokenizer()  # LlamaIndex falls back to its default, which nobody chose
    made = make_llm()
    assert get_tokenizer()("héllo") == made.rapid_engine.vocabulary.encode("héllo")
    monkeypatch.setattr(llama_index.core, "global_tokenizer", str.encode)
    make_llm()
    assert get_tokenizer() is str.encode
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    make_llm(count_with_own_tokenizer=False)
    assert llama_index.core.global_tokenizer is None


def test_an_engine_that_is_there_already():
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer()) as engine:
        llm = RapidLLM(engine=engine, max_new_tokens=5)
        assert llm.rapid_engine is engine and llm.complete("hello").raw["usage"]["completion_tokens"] == 5


def test_explain_shows_both_texts(llm):
    template = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
    for prepared in (
        llm.explain(TEXT),
        llm.explain(MESSAGES),
        llm.explain(template, context_str=DOCUMENT, query_str=f"What about {PARAGRAPHS[4][11:60]}?"),
    ):
        assert DOCUMENT in prepared.target.text and DOCUMENT not in prepared.drafter.text
        assert PARAGRAPHS[4][11:60] in prepared.drafter.contexts[0] and prepared.retrieved


def test_what_cannot_be_answered_is_refused_before_the_first_piece(llm):
    with pytest.raises(PromptError, match="empty"):
        llm.stream_complete(" ")
    with pytest.raises(ContextOverflowError, match="8,192"):
        llm.stream_chat(MESSAGES, max_new_tokens=9000)
    with pytest.raises(PromptError, match="ImageBlock"):
        llm.chat([ChatMessage(role="user", blocks=[ImageBlock(url="file:///nowhere.png")])])
    assert llm.complete("hello").text


# --- callbacks and events -------------------------------------------------------------------------------------------


async def test_events_come_in_order(llm, events):
    llm.chat(MESSAGES)
    list(llm.stream_complete(TEXT))
    assert events[:2] == ["LLMChatStartEvent", "LLMChatEndEvent"]
    assert events[2] == "LLMCompletionStartEvent" and events[-1] == "LLMCompletionEndEvent"
    assert set(events[3:-1]) == {"LLMCompletionInProgressEvent"}
    events.clear()
    await llm.achat(MESSAGES)
    [piece async for piece in await llm.astream_chat(MESSAGES)]
    assert [name for name in events if "InProgress" not in name] == ["LLMChatStartEvent", "LLMChatEndEvent"] * 2


async def test_events_end_on_errors_too(events):
    debug = LlamaDebugHandler(print_trace_on_end=False)
    llm = make_llm(callback_manager=CallbackManager([debug]))
    with pytest.raises(ContextOverflowError):
        llm.chat(MESSAGES, max_new_tokens=9000)
    with pytest.raises(ContextOverflowError):
        await llm.acomplete(TEXT, max_new_tokens=9000)
    pairs = debug.get_event_pairs(CBEventType.LLM)
    assert len(pairs) == 2
    assert all(isinstance(end.payload[EventPayload.EXCEPTION], ContextOverflowError) for _, end in pairs)


def test_token_counters_read_the_models_own_counts():
    counter = TokenCountingHandler(tokenizer=lambda text: pytest.fail("counted by a tokenizer"))
    llm = make_llm(callback_manager=CallbackManager([counter]))
    usage = llm.chat(MESSAGES).raw["usage"]
    assert counter.prompt_llm_token_count == usage["prompt_tokens"]
    assert counter.completion_llm_token_count == usage["completion_tokens"]


# --- concurrency, cancellation, accidents ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["acomplete", "achat", "astream_complete", "astream_chat", "apredict"])
async def test_the_event_loop_stays_free(llm, form):
    async def ask():
        if form == "apredict":
            template = PromptTemplate("{context_str}\n{query_str}")
            return await llm.apredict(template, context_str=DOCUMENT, query_str="which?")
        answer = await getattr(llm, form)(TEXT if "complete" in form else MESSAGES)
        return [piece async for piece in answer] if form.startswith("astream") else answer

    assert await answered_while_the_loop_turns(ask(), llm.rapid_engine)


@pytest.mark.parametrize("form", ["threads", "tasks"])
async def test_eight_calls_at_once_are_answered_as_alone(llm, form):
    prompts = [f"Context:\n{DOCUMENT}\n\nQuestion: What about {p[11:60]}?" for p in PARAGRAPHS[:8]]
    alone = [llm.complete(prompt).text for prompt in prompts]
    if form == "tasks":
        together = await asyncio.gather(*(llm.acomplete(prompt) for prompt in prompts))
    else:
        together = await asyncio.gather(*(asyncio.to_thread(llm.complete, prompt) for prompt in prompts))
    assert [answer.text for answer in together] == alone


def kv_bytes(caches):  # noqa: F811
    gc.collect()
    return len(caches)


async def test_a_stream_closed_early_or_never_drained_holds_nothing_up(llm, caches):  # noqa: F811
    expected = llm.complete(TEXT).text
    stream = llm.stream_complete(TEXT)
    next(stream)
    stream.close()
    undrained = llm.stream_chat(MESSAGES)
    next(undrained)
    for _ in llm.stream_complete(TEXT):
        assert llm.complete(TEXT).text == expected  # a call inside a loop over a stream
        break
    assert (await llm.acomplete(TEXT)).text == expected
    async for _ in await llm.astream_chat(MESSAGES):
        break
    assert llm.complete(TEXT).text == expected


async def test_a_cancelled_task_frees_the_model_for_the_next_call(llm, monkeypatch):
    expected = (await llm.acomplete(TEXT)).text
    for form in (llm.acomplete(TEXT), llm.apredict(PromptTemplate("{query_str}"), query_str="hello")):
        with monkeypatch.context() as patch:
            passes = HeldPasses(llm.rapid_engine, patch)
            task = asyncio.create_task(form)
            await eventually(passes.inside.is_set)
            task.cancel()
            passes.let_go()  # the cancelled task waits for its pass
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (await asyncio.wait_for(llm.acomplete(TEXT), 60)).text == expected
    await eventually(lambda: not llm.rapid_engine.running_requests)


async def test_an_exception_in_the_model_reaches_the_caller_and_the_next_call_works(llm, monkeypatch):
    expected = llm.complete(TEXT).text

    def fail(*_):
        raise MemoryError("no memory left")

    for form in ("complete", "stream", "acomplete", "astream"):
        with monkeypatch.context() as patch:
            patch.setattr(type(llm.rapid_engine.target), "forward", fail)
            with pytest.raises(MemoryError, match="no memory left"):
                if form == "complete":
                    llm.complete(TEXT)
                elif form == "stream":
                    list(llm.stream_complete(TEXT))
                elif form == "acomplete":
                    await llm.acomplete(TEXT)
                else:
                    [piece async for piece in await llm.astream_complete(TEXT)]
        assert llm.complete(TEXT).text == expected


def test_no_threads_pile_up(llm):
    llm.complete(TEXT)
    before = threading.active_count()
    for _ in range(10):
        stream = llm.stream_complete(TEXT)
        next(stream)
        del stream
    assert threading.active_count() <= before


# --- imports --------------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_importing_loads_neither_torch_nor_langchain():
    code = (
        "import sys, llama_index_rapid\n"
        "assert llama_index_rapid.RapidLLM and llama_index_rapid.DocumentOrder\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(sorted(loaded & {'torch', 'transformers', 'langchain', 'langchain_core', 'faiss'}))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
