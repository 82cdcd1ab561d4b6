"""An engine on a server behaves as one of this process: over a real HTTP server on the loopback address."""

import asyncio
import copy
import json
import pickle
import threading
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from rapid_integrations import (
    Chat,
    Completion,
    CompressionConfig,
    ConfigurationError,
    ContextOverflowError,
    EngineClosedError,
    HostPartError,
    NotPicklableError,
    Prompt,
    PromptError,
    RapidEngine,
    RemoteEngine,
    RemoteError,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
)
from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.engine.outbox import ROOM
from rapid_integrations.server.remote.complete_routes import described
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.leaks import settled, threads
from tests.toys.models import byte_tokenizer, words
from tests.toys.remote_engines import DOCUMENT, KEY, PROMPT, SMALL, local_engine, require_key, serving
from tests.toys.thinking import EMPTY, OFF, both_texts, switched_engine
from tests.toys.thinking import PROMPT as SWITCHED
from tests.toys.tool_callers import TOOLS, assert_valid
from tests.toys.tool_callers import engine as tool_caller

LONG = SamplingParams(max_new_tokens=900)
UNKNOWN = coded("configuration.unknown_name")


@pytest.fixture(scope="module")
def here():
    with local_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def url(here):
    with serving(here) as address:
        yield address


@pytest.fixture(scope="module")
def there(url):
    with RapidEngine.connect(url) as engine:
        yield engine


# --- the same requests and answers ----------------------------------------------------------------------------------

REQUESTS = [
    ("plain", "hello there", {}),
    ("context", PROMPT, {}),
    ("messages", [{"role": "system", "content": "be brief"}, {"role": "user", "content": PROMPT}], {}),
    (
        "parts",
        [{"role": "user", "content": [{"type": "text", "text": "a"}, Prompt.from_context(DOCUMENT, "which?")]}],
        {},
    ),
    ("sampled", PROMPT, {"sampling": SamplingParams(max_new_tokens=9, temperature=0.9, seed=4, stop=("zq",))}),
    ("law", PROMPT, {"speculation": SpeculationConfig(law="augmented", eta=7.0, proposer="drafter", draft_length=3)}),
    ("compression", PROMPT, {"compression": CompressionConfig(chunk_tokens=32, min_tokens=32, min_chunks=1)}),
    ("raw", "hello", {"apply_chat_template": False}),
    ("regex", "hello", {"sampling": SamplingParams(max_new_tokens=9, structured=StructuredOutput(regex="[ab]{4}"))}),
    ("surrogate", "half of a pair: \ud83d", {"apply_chat_template": False}),
]


@pytest.mark.parametrize(("prompt", "options"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS])
def test_answers_are_those_of_the_engine_there(here, there, prompt, options):
    mine, theirs = here.generate(prompt, **options), there.generate(prompt, **options)
    assert theirs.text == mine.text and theirs.token_ids == mine.token_ids
    assert theirs.finish_reason == mine.finish_reason and theirs.usage == mine.usage
    assert theirs.retrieved == mine.retrieved
    for name in ("law", "eta", "proposer", "segmentation", "retrieval", "query_coverage", "tokens", "target"):
        assert getattr(theirs.stats, name) == getattr(mine.stats, name)
    pieces = list(there.stream(prompt, **options))
    assert Completion.join(pieces).text == mine.text and pieces[-1].stats is not None


def test_prompts_are_those_of_the_engine_there(here, there):
    assert there.explain(PROMPT) == here.explain(PROMPT)
    with there.stream(PROMPT) as stream:
        assert stream.prepared == here.explain(PROMPT)
    assert there.count_tokens(PROMPT) == here.count_tokens(PROMPT)
    assert there.fingerprints() == here.fingerprints()


def test_it_is_known_what_the_engine_there_is(here, there):
    assert isinstance(there, RapidEngine) and there.self_speculation
    assert (there.target.name, there.target.context_window) == (here.target.name, here.target.context_window)
    assert there.vocabulary.encode("hello <|im_end|>") == here.vocabulary.encode("hello <|im_end|>")
    assert there.vocabulary.template_tokens == here.vocabulary.template_tokens
    assert (there.sampling, there.speculation, there.compression) == (here.sampling, here.speculation, here.compression)
    assert there.supports_tools == here.supports_tools and there.reuses_prefixes == here.reuses_prefixes
    here.generate(PROMPT)
    deadline = time.monotonic() + 60
    while there.running_requests and time.monotonic() < deadline:  # a closed stream ends there within one pass
        time.sleep(0.01)
    assert there.running_requests == 0 and there.waiting_requests == 0 and there.kv_bytes == here.kv_bytes > 0


def test_own_defaults(url):
    with RapidEngine.connect(url, sampling=SamplingParams(max_new_tokens=3)) as engine:
        assert len(engine.generate(PROMPT).token_ids) == 3


def test_progress_and_trace(there):
    seen = []
    found = there.generate(PROMPT, trace=True, on_progress=lambda *event: seen.append(event))
    assert {stage for stage, *_ in seen} >= {"prefill target", "prefill drafter"}
    assert tuple(each.token_id for each in found.trace.tokens) == found.token_ids
    assert there.generate(PROMPT).trace is None


def test_tools():
    with (
        serving(tool_caller("qwen2.5")) as address,
        RapidEngine.connect(address) as engine,
    ):
        assert engine.supports_tools
        sampling = SamplingParams(max_new_tokens=140, temperature=1.2, seed=1)
        found = engine.generate("what?", tools=TOOLS, tool_choice="required", sampling=sampling)
        assert_valid(found)
        mine = tool_caller("qwen2.5").generate("what?", tools=TOOLS, tool_choice="required", sampling=sampling)
        assert [each.model_dump(exclude={"id"}) for each in found.tool_calls] == [
            each.model_dump(exclude={"id"}) for each in mine.tool_calls
        ]
        with pytest.raises(ConfigurationError, match="two tools are called"):
            engine.stream("what?", tools=[TOOLS[0], TOOLS[0]])


def test_many_at_once(here, there):
    prompts = [Prompt.from_context(DOCUMENT, f"which words about {number}?") for number in range(8)]
    alone = [here.generate(prompt).token_ids for prompt in prompts]

    async def together():
        return await asyncio.gather(*(there.agenerate(prompt) for prompt in prompts))

    assert [each.token_ids for each in asyncio.run(together())] == alone

    async def streamed():
        async with await there.astream(PROMPT) as stream:
            return [piece async for piece in stream]

    assert Completion.join(asyncio.run(streamed())).token_ids == here.generate(PROMPT).token_ids


def test_a_conversation(here, there):
    found, expected = Chat(there, DOCUMENT), Chat(here, DOCUMENT)
    assert found.read() == expected.read()
    for question in ("which words?", "and then?"):
        mine, theirs = "".join(p.text for p in expected.ask(question)), "".join(p.text for p in found.ask(question))
        assert theirs == mine
    assert found.turns == expected.turns


def test_documents_are_read_ahead_on_the_server(here, there):
    text = words(77, 200)
    read = there.read(text)
    assert read.cached_tokens < 100 and read.in_memory and here.read(text).cached_tokens == read.tokens
    completion = there.generate(Prompt.from_context(text, "which words?"), sampling=SamplingParams(max_new_tokens=3))
    assert completion.stats.cached_prompt_tokens >= read.tokens
    with pytest.raises(ConfigurationError):
        there.read(text, compressor=Counting(None))
    with pytest.raises(PromptError):
        there.read("")


# --- parts of this process ------------------------------------------------------------------------------------------


class Counting:
    """A compressor of this process."""

    def __init__(self, inner):
        self.inner, self.asked = inner, []

    def compress(self, contexts, query, config, on_progress=None):
        self.asked.append((tuple(contexts), query))
        return self.inner.compress(contexts, query, config, on_progress)


def test_a_compressor_of_this_process_searches_here(here, there):
    own = Counting(DefaultCompressor(HashEmbedder(), there.vocabulary, None))
    other = CompressionConfig(chunk_tokens=16, min_tokens=32, min_chunks=1)
    found = there.generate(PROMPT, compressor=own, compression=other)
    assert own.asked == [((DOCUMENT,), "which words?")]
    inner = DefaultCompressor(HashEmbedder(), here.vocabulary, None)
    mine = here.generate(PROMPT, compressor=inner, compression=other)
    assert found.token_ids == mine.token_ids and found.retrieved == mine.retrieved
    assert found.usage == mine.usage
    assert there.explain(PROMPT, compressor=own, compression=other) == here.explain(
        PROMPT, compressor=inner, compression=other
    )


def test_a_compressor_that_leaves_it_to_the_server(here, there):
    own = Counting(there.compressor)
    assert there.generate(PROMPT, compressor=own).token_ids == here.generate(PROMPT).token_ids
    assert len(own.asked) == 1


def test_a_part_that_fails_here(there):
    class Failing:
        def compress(self, contexts, query, config, on_progress=None):
            raise HostPartError("the retriever failed")

    with pytest.raises(HostPartError, match="retriever"):
        there.stream(PROMPT, compressor=Failing())


def test_a_search_of_another_context_is_refused(url):
    body = {"prompt": "no context", "compressed": {"contexts": "00", "texts": ["a"], "selected": [[]]}}
    body["compressed"] |= {"context_tokens": 9, "kept_tokens": 1, "shortened": True}
    body["prompt"] = {"rapid_prompt": PROMPT.model_dump()}
    status, said = post(url, body)
    assert status == 400 and "another context" in said["error"]["message"]


# --- errors ---------------------------------------------------------------------------------------------------------


def test_errors_are_of_the_same_class(there, here):
    wrong = [
        (ContextOverflowError, PROMPT, {"sampling": SamplingParams(max_new_tokens=100_000)}),
        (PromptError, "  ", {}),
        (PromptError, [{"role": "user", "content": 7}], {}),
        (ConfigurationError, PROMPT, {"speculation": SpeculationConfig(proposer="nobody")}),
        (ConfigurationError, PROMPT, {"tools": [{"type": "function"}]}),
        (
            ConfigurationError,
            "hello",
            {"sampling": SamplingParams(structured=StructuredOutput(regex="(?=a)"))},
        ),
    ]
    for kind, prompt, options in wrong:
        with pytest.raises(kind) as mine:
            here.stream(prompt, **options)
        for ask in (there.stream, there.generate):
            with pytest.raises(kind) as theirs:
                ask(prompt, **options)
            assert type(theirs.value) is kind and str(theirs.value) == str(mine.value)
            assert theirs.value.code == mine.value.code
    with pytest.raises(ContextOverflowError) as found:
        there.generate(PROMPT, sampling=SamplingParams(max_new_tokens=100_000), on_progress=lambda *_: None)
    assert found.value.new_tokens == 100_000 and found.value.context_window == 2048


def test_unknown_arguments(there, url):
    with pytest.raises(ConfigurationError, match="tempreature"):
        there.generate(PROMPT, tempreature=1)
    with pytest.raises(ConfigurationError, match="did you mean 'timeout'"):
        RapidEngine.connect(url, timeuot=3)


def test_errors_of_the_caller_s_own_functions(there, here):
    def fails(stage, done, total):
        raise RuntimeError("from outside")

    with pytest.raises(RuntimeError, match="from outside"):
        there.generate(PROMPT, on_progress=fails)
    assert settled(lambda: here.running_requests, 0) == 0


def test_the_key(here):
    with serving(here, middleware=[require_key()]) as address:
        with pytest.raises(RemoteError, match="refuses the API key", check=coded("remote.refused")):
            RapidEngine.connect(address)
        with RapidEngine.connect(address, api_key=KEY) as engine:
            assert engine.generate(PROMPT).token_ids == here.generate(PROMPT).token_ids
            assert KEY not in repr(vars(engine)) and KEY not in repr(engine)


def test_nobody_is_there():
    with pytest.raises(RemoteError, match="cannot be reached", check=coded("remote.unreachable")):
        RapidEngine.connect("http://127.0.0.1:9")
    with pytest.raises(ConfigurationError, match="is not the URL"):
        RapidEngine.connect("127.0.0.1:8080")


def test_another_program_is_there(here):
    from tests.toys.loopback import served

    async def hello(request):
        return JSONResponse({"hello": "there"})

    with served([Route("/rapid/v1/engine", hello), Route("/rapid/v1/tokenizer", hello)]) as address:
        with pytest.raises(RemoteError, match="cannot be read", check=coded("remote.answer")):
            RapidEngine.connect(address)
    with served([]) as address, pytest.raises(RemoteError, match="does not exist there", check=coded("remote.answer")):
        RapidEngine.connect(address)


def test_an_answer_that_is_broken_off_is_no_answer(here):
    from rapid_integrations.server.remote.routes import routes
    from tests.toys.loopback import served

    def cut(route):
        async def complete(request):
            whole = await route.endpoint(request)

            async def some():
                sent = 0
                async for part in whole.body_iterator:
                    yield part
                    sent += part.startswith(b"event: piece")
                    if sent == 2:
                        return

            return StreamingResponse(some(), media_type="text/event-stream")

        return Route(route.path, complete, methods=["POST"])

    some = [cut(each) if each.path.endswith("/complete") else each for each in routes(here)]
    with served(some) as address, RapidEngine.connect(address) as engine:
        stream = engine.stream(PROMPT)
        assert next(stream).text is not None
        with pytest.raises(RemoteError, match="before its end", check=coded("remote.failed")):
            list(stream)


def test_a_silent_server(here):
    from rapid_integrations.server.remote.routes import routes
    from tests.toys.loopback import served

    gone = threading.Event()

    async def silent(request):
        while not gone.is_set():
            await asyncio.sleep(0.02)
        return JSONResponse({})

    some = [
        Route(each.path, silent, methods=["POST"]) if each.path.endswith("/complete") else each for each in routes(here)
    ]
    with served(some) as address, RapidEngine.connect(address, timeout=1.5) as engine:
        with pytest.raises(RemoteError, match=r"within 1\.5 s", check=coded("remote.timeout")):
            engine.generate(PROMPT)
        gone.set()


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "garbage", "task"])
def test_a_stream_that_is_closed_ends_the_request_there(here, there, how):
    if how == "task":

        async def cancelled():
            async def read():
                async for _ in await there.astream(PROMPT, sampling=LONG):
                    started.set()

            started = asyncio.Event()
            task = asyncio.create_task(read())
            await started.wait()
            assert here.running_requests == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
    else:
        stream = there.stream(PROMPT, sampling=LONG)
        next(stream)
        assert here.running_requests == 1
        if how == "close":
            stream.close()
        del stream
    assert settled(lambda: here.running_requests, 0) == 0


def test_of_a_stream_that_nobody_reads_few_pieces_are_kept(here, there):
    stream = there.stream(PROMPT, sampling=LONG)
    next(stream)
    outbox = stream._job.outbox
    assert settled(lambda: outbox.full, True) is True
    time.sleep(0.3)
    assert len(outbox._events) <= ROOM + 2  # of pieces; progress is not counted
    assert len(list(stream)) > 100
    assert settled(lambda: here.running_requests, 0) == 0


def test_closing(here, url):
    here.generate(PROMPT, sampling=SamplingParams(max_new_tokens=1))  # its own thread stays
    settled(lambda: "rapid preparation" in threads(), False, 10.0)  # of a test before this one
    before = threads()
    engine = RapidEngine.connect(url)
    stream = engine.stream(PROMPT, sampling=LONG)
    next(stream)
    unread = engine.stream(PROMPT)
    engine.close()
    engine.close()
    for call in (lambda: list(stream), lambda: list(unread), lambda: engine.generate(PROMPT), lambda: engine.target):
        with pytest.raises(EngineClosedError):
            call()
    assert engine.closed and settled(threads, before) == before


def test_a_server_whose_engine_is_closed():
    engine = local_engine()
    with serving(engine) as address, RapidEngine.connect(address) as remote:
        engine.close()
        with pytest.raises(EngineClosedError):
            remote.generate(PROMPT)


def test_what_a_remote_engine_cannot_do(there):
    for call in (there.clear_prefix_cache, lambda: there.alone(there.target), there.compute):
        with pytest.raises(ConfigurationError):
            call()
    import copy
    import pickle

    assert copy.deepcopy(there) is there
    with pytest.raises(NotPicklableError, match="connect"):
        pickle.dumps(there)


# --- other clients --------------------------------------------------------------------------------------------------


def post(url, body, path="/rapid/v1/complete"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_whole_answer(url, here):
    status, said = post(url, {"prompt": {"rapid_prompt": PROMPT.model_dump()}, "sampling": {"max_new_tokens": 5}})
    mine = here.generate(PROMPT, sampling=SamplingParams(max_new_tokens=5))
    assert status == 200 and said["completion"]["text"] == mine.text and said["trace"] is None
    assert said["prepared"]["target_ids"] == here.explain(PROMPT).target_ids


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b'{"prompt": 7}',
        b'{"prompt": [7]}',
        b'{"prompt": "a", "sampling": 7}',
        b'{"prompt": "a", "sampling": {"temperature": "hot"}}',
        b'{"prompt": "a", "sampling": {"temprature": 1}}',
        b'{"prompt": "a", "temperature": 1}',
        b'{"prompt": "a", "tools": "all"}',
        b'{"prompt": "a", "tools": [7]}',
        b'{"prompt": "a", "tool_choice": 7}',
        b'{"prompt": "a", "parallel_tool_calls": "yes"}',
        b'{"prompt": "a", "trace": "yes"}',
        b'{"prompt": "a", "apply_chat_template": "yes"}',
        b'{"prompt": [{"role": "user", "content": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"prompt": "a", "compressed": {"contexts": 7}}',
        b'{"prompt": {"rapid_prompt": {"text": "a", "context_spans": [[5, 9]]}}}',
        b'{"prompt": {"rapid_prompt": {"txt": "a"}}}',
        b'{"prompt": {"rapid_prompt": 7}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_what_is_no_request_is_refused(url, body):
    for path in ("/rapid/v1/complete", "/rapid/v1/explain"):
        status, said = post(url, body, path)
        assert status == 400, said
        assert said["error"]["type"] == "invalid_request_error" and said["error"]["message"]


def test_a_description_is_json(here):
    assert json.loads(json.dumps(described(here)))["models"]["target"]["context_window"] == 2048


def test_remote_engines_are_engines(there):
    assert isinstance(there, RemoteEngine) and there.url.startswith("http://127.0.0.1")
    assert there.compressor.settings_of_answers == ("url",)
    assert byte_tokenizer().chat_template == there.vocabulary.tokenizer.chat_template
    assert there.compression == SMALL
    assert copy.copy(there) is there is copy.deepcopy(there)
    with pytest.raises(NotPicklableError, match=r"RapidEngine\.connect"):
        pickle.dumps(there)


# --- arguments of the chat template ---------------------------------------------------------------------------------


def test_arguments_of_the_chat_template_travel():
    on = {"enable_thinking": True}
    with switched_engine() as here, serving(here) as url, RapidEngine.connect(url) as there:
        for given in (None, OFF, on):
            mine = here.explain(SWITCHED, chat_template_kwargs=given)
            assert both_texts(there.explain(SWITCHED, chat_template_kwargs=given)) == both_texts(mine)
            assert there.count_tokens(SWITCHED, chat_template_kwargs=given) == len(mine.target_ids)
            answers = [each.generate(SWITCHED, chat_template_kwargs=given) for each in (here, there)]
            assert answers[0].token_ids == answers[1].token_ids
        assert there.read(words(7, 100), chat_template_kwargs=OFF).tokens > 100
        with pytest.raises(ConfigurationError, match="It reads enable_thinking", check=UNKNOWN):
            there.generate(SWITCHED, chat_template_kwargs={"x": 1})
        with pytest.raises(ConfigurationError, match="It reads enable_thinking", check=UNKNOWN):
            RapidEngine.connect(url, chat_template_kwargs={"x": 1})
        with RapidEngine.connect(url, chat_template_kwargs=OFF) as silent:
            assert silent.explain(SWITCHED).target.text.endswith(EMPTY)
        calls = {"tools": TOOLS, "tool_choice": "required", "sampling": SamplingParams(max_new_tokens=200)}
        assert_valid(there.generate(SWITCHED, chat_template_kwargs=OFF, parallel_tool_calls=False, **calls))


def test_a_servers_own_arguments_hold_for_clients_that_name_none():
    with switched_engine(chat_template_kwargs=OFF) as here, serving(here) as url, RapidEngine.connect(url) as there:
        assert there.chat_template_kwargs == OFF
        assert there.explain(SWITCHED).target.text.endswith(EMPTY)
        assert not there.explain(SWITCHED, chat_template_kwargs={"enable_thinking": True}).target.text.endswith(EMPTY)
        assert there.explain("hi", apply_chat_template=False).target.text == "hi"
