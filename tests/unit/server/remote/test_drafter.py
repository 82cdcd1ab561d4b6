"""A drafter on another machine gives the answers of one here: over a real HTTP server on the loopback address."""

import asyncio
import threading
import time

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.responses import JSONResponse
from starlette.routing import Route

from rapid_integrations import (
    ConfigurationError,
    ContextOverflowError,
    RapidEngine,
    RemoteDrafter,
    RemoteError,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
    VocabularyMismatchError,
)
from rapid_integrations.server.remote.drafter_routes import drafter_routes
from tests.toys.budget import in_turn
from tests.toys.errors import coded
from tests.toys.leaks import settled
from tests.toys.light_model import light_engine, light_model, light_weights
from tests.toys.loopback import served
from tests.toys.models import byte_tokenizer
from tests.toys.readers import Readers
from tests.toys.remote_drafters import (
    NEW,
    PROMPT,
    SETTINGS,
    TARGET,
    drafting_here,
    drafting_there,
    model,
    server_engine,
)
from tests.toys.remote_engines import KEY, require_key

WAYS = [
    {"law": law, "proposer": proposer, "draft_length": 4}
    for law in ("augmented", "target")
    for proposer in ("drafter", "prompt_lookup", "hybrid", "none")
]


@pytest.fixture(scope="module")
def server():
    with server_engine() as engine:
        yield engine


@pytest.fixture(scope="module")
def url(server):
    with served(drafter_routes(server)) as address:
        yield address


@pytest.fixture(scope="module", params=[0, 20])
def pair(request, url):
    """An engine whose drafter is here, and one whose drafter is there; both whole or cut to so many tokens."""
    with drafting_here(request.param) as here, drafting_there(RemoteDrafter(url, best=request.param)) as there:
        yield here, there


def answer(engine, way, **sampling):
    return engine.generate(
        PROMPT, sampling=SamplingParams(max_new_tokens=NEW, **sampling), speculation=SpeculationConfig(**way)
    )


# By day each proposer meets every temperature under one law or the other.
SAMPLED = [
    pytest.param(way, temperature, id=f"{way['law']}-{way['proposer']}-{temperature}")
    for number, way in enumerate(WAYS)
    for temperature in in_turn((0.0, 1.0, 0.3), number + number // 4)
]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(("way", "temperature"), SAMPLED)
def test_answers_are_those_of_a_drafter_here(pair, way, temperature):
    here, there = pair
    mine = answer(here, way, temperature=temperature, seed=3)
    theirs = answer(there, way, temperature=temperature, seed=3)
    assert theirs.token_ids == mine.token_ids
    assert (theirs.stats.rounds, theirs.stats.drafted_tokens) == (mine.stats.rounds, mine.stats.drafted_tokens)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 5},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.2},
        {"structured": StructuredOutput(regex="[a-f]{3,30}")},
    ],
    ids=lambda sampling: next(iter(sampling)),
)
def test_truncation_penalties_and_constraints(pair, sampling):
    # The server draws without penalties and constraints. Its guesses are then wrong, and the answer is the same.
    here, there = pair
    for law in ("augmented", "target"):
        way = {"law": law, "proposer": "drafter", "draft_length": 4}
        mine = answer(here, way, temperature=0.8, seed=5, **sampling)
        assert answer(there, way, temperature=0.8, seed=5, **sampling).token_ids == mine.token_ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_drafts_of_a_third_model_are_scored_there(url, temperature):
    way = {"law": "augmented", "proposer": "draft_lm", "draft_length": 4}
    with drafting_here(20, draft_lm=model(1)) as here, drafting_there(RemoteDrafter(url), draft_lm=model(1)) as there:
        mine = answer(here, way, temperature=temperature, seed=2)
        theirs = answer(there, way, temperature=temperature, seed=2)
    assert theirs.token_ids == mine.token_ids
    assert theirs.stats.remote.calls <= theirs.stats.rounds + 1


def test_a_round_takes_one_round_trip(url):
    with drafting_there(RemoteDrafter(url)) as engine:
        found = answer(engine, {"law": "augmented", "proposer": "drafter", "draft_length": 4}).stats
    remote = found.remote
    assert remote.calls == found.rounds and remote.round_trips == found.rounds + 1  # and one for the prompt
    assert remote.url == url and remote.best == 20 and remote.rows >= found.drafted_tokens
    assert 0.0 < remote.distance < 1.0 and remote.waited_s > 0.0
    assert remote.target_from is None and remote.lost is None


def test_the_prompt_is_sent_once(url):
    with drafting_there(RemoteDrafter(url)) as engine:
        way = {"law": "augmented", "proposer": "none"}
        short = engine.generate(PROMPT, sampling=SamplingParams(max_new_tokens=2), speculation=SpeculationConfig(**way))
        long = answer(engine, way)
    prompt_bytes = 4 * short.usage.drafter_prompt_tokens
    assert prompt_bytes < short.stats.remote.sent_bytes < 2 * prompt_bytes
    assert long.stats.remote.sent_bytes - short.stats.remote.sent_bytes < 250 * NEW


def test_whole_rows_are_at_no_distance(url):
    with drafting_there(RemoteDrafter(url, best=0)) as engine:
        assert answer(engine, {"law": "augmented", "proposer": "none"}).stats.remote.distance == 0.0


def test_a_second_question_finds_the_prompt_in_the_cache_there(url):
    with drafting_there(RemoteDrafter(url)) as engine:
        answer(engine, {"law": "augmented", "proposer": "none"})
        again = answer(engine, {"law": "augmented", "proposer": "none"})
    assert again.stats.cached_drafter_tokens > 100


class Counted:
    """The routes of a drafter, which count the HTTP requests for rows."""

    def __init__(self, engine):
        self.requests = 0
        self.routes = [self._counted(each) if each.path.endswith("/read") else each for each in drafter_routes(engine)]

    def _counted(self, route):
        async def read(request):
            self.requests += 1
            return await route.endpoint(request)

        return Route(route.path, read, methods=["POST"])


def test_several_requests_share_round_trips(server, monkeypatch):
    counted = Counted(server)
    way = SpeculationConfig(law="augmented", proposer="drafter", draft_length=4)
    with (
        drafting_here(20) as here,
        served(counted.routes) as url,
        drafting_there(RemoteDrafter(url)) as there,
    ):
        alone = [
            here.generate(PROMPT, sampling=SamplingParams(max_new_tokens=NEW, temperature=1.0, seed=s), speculation=way)
            for s in range(4)
        ]

        Readers(there, monkeypatch).wait_for(4)

        async def together():
            asked = [
                there.agenerate(
                    PROMPT, sampling=SamplingParams(max_new_tokens=NEW, temperature=1.0, seed=s), speculation=way
                )
                for s in range(4)
            ]
            return await asyncio.gather(*asked)

        found = asyncio.run(together())
    assert [each.token_ids for each in found] == [each.token_ids for each in alone]
    assert counted.requests < sum(each.stats.remote.calls for each in found)


def test_a_request_that_is_closed_while_its_prompt_is_read_there_is_forgotten(server, monkeypatch):
    reading = threading.Event()
    forward = server.target.forward

    def slow(rows):
        reading.set()
        time.sleep(0.5)
        return forward(rows)

    with served(drafter_routes(server)) as url, drafting_there(RemoteDrafter(url)) as engine:
        monkeypatch.setattr(server.target, "forward", slow)
        stream = engine.stream(PROMPT, speculation=SpeculationConfig(law="augmented", proposer="none"))
        reader = threading.Thread(target=lambda: list(stream), daemon=True)
        reader.start()
        assert reading.wait(60.0)
        stream.close()
        reader.join()
        assert settled(lambda: server.running_requests, 0) == 0


def test_texts_are_forgotten_when_the_engine_is_closed(server, url):
    engine = drafting_there(RemoteDrafter(url))
    streams = [engine.stream(PROMPT, sampling=SamplingParams(max_new_tokens=500)) for _ in range(3)]
    for stream in streams:
        next(stream)
    assert server.running_requests >= 3
    engine.close()
    assert settled(lambda: server.running_requests, 0) == 0


def test_the_key_is_sent(server):
    with served(drafter_routes(server), middleware=[require_key()]) as url:
        with pytest.raises(RemoteError, match="refuses the API key", check=coded("remote.refused")):
            drafting_there(RemoteDrafter(url))
        drafter = RemoteDrafter(url, api_key=KEY)
        assert KEY not in repr(drafter)
        with drafting_there(drafter) as engine:
            assert engine.generate(PROMPT).token_ids


def test_texts_are_forgotten_when_requests_end_or_are_closed(server, url):
    with drafting_there(RemoteDrafter(url)) as engine:
        stream = engine.stream(PROMPT, sampling=SamplingParams(max_new_tokens=500))
        next(stream)
        assert server.running_requests >= 1
        stream.close()
        assert settled(lambda: server.running_requests, 0) == 0


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_another_tokenizer_is_refused(url):
    other = byte_tokenizer(merges=[("t", "h")])
    with pytest.raises(VocabularyMismatchError, match="cannot draft"):
        RapidEngine(light_model(tokenizer=other), RemoteDrafter(url), **SETTINGS)


def test_a_tokenizer_that_is_only_written_differently_is_accepted(url):
    other = byte_tokenizer(extra_tokens=["<|unused1|>"])
    tokenizers = RapidEngine(light_model(tokenizer=other), RemoteDrafter(url), **SETTINGS)
    with tokenizers:
        assert len(answer(tokenizers, {"law": "augmented", "proposer": "none"}).token_ids) > 0


def test_nobody_is_there():
    with pytest.raises(RemoteError, match="cannot be reached", check=coded("remote.unreachable")):
        drafting_there(RemoteDrafter("http://127.0.0.1:9"))


def test_another_program_is_there():
    async def hello(request):
        return JSONResponse({"hello": "there"})

    with served([Route("/rapid/v1/drafter", hello)]) as url:
        with pytest.raises(RemoteError, match="another version", check=coded("remote.answer")):
            drafting_there(RemoteDrafter(url))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "vllm"},
        {"on_lost": "ignore"},
        {"best": -1},
        {"best": 0, "kind": "openai"},
        {"timeout": 0.0},
        {"url": "a"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_arguments(wrong):
    with pytest.raises(ConfigurationError):
        RemoteDrafter(**{"url": "http://127.0.0.1:9", **wrong})


def test_settings_for_loading_go_with_a_drafter_that_is_loaded():
    with pytest.raises(ConfigurationError, match="its own machine"):
        RapidEngine.from_pretrained("x", RemoteDrafter("http://127.0.0.1:9"), drafter_dtype="float32")


def test_a_prompt_that_does_not_fit_there():
    with (
        light_engine(config={"max_position_embeddings": 128}) as small,
        served(drafter_routes(small)) as url,
        drafting_there(RemoteDrafter(url)) as engine,
        pytest.raises(ContextOverflowError, match="holds 128 tokens"),
    ):
        answer(engine, {"law": "augmented"})


class Failing:
    """The routes of a drafter that stops answering after some rounds: it is silent, or says that it failed."""

    def __init__(self, engine, rounds, silent):
        self._left, self._silent = rounds, silent
        self.gone = threading.Event()
        self.routes = [self._counted(each) if each.path.endswith("/read") else each for each in drafter_routes(engine)]

    def _counted(self, route):
        async def read(request):
            self._left -= 1
            if self._left >= 0:
                return await route.endpoint(request)
            while self._silent and not self.gone.is_set():
                await asyncio.sleep(0.02)
            return JSONResponse({"error": {"message": "overloaded"}}, 500)

        return Route(route.path, read, methods=["POST"])


@torch.no_grad()
def greedily(prompt_ids, token_ids, at):
    """Return what the target alone writes behind the first `at` tokens, for as many tokens as there are."""
    target, written = light_weights(TARGET), list(token_ids[:at])
    while len(written) < len(token_ids):
        written.append(int(target(torch.tensor([[*prompt_ids, *written]])).logits[0, -1].argmax()))
    return tuple(written[at:])


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("proposer", ["drafter", "none", "prompt_lookup"])
@pytest.mark.parametrize("rounds", [0, 3])
def test_a_lost_server(server, silent, proposer, rounds):
    way = {"law": "augmented", "proposer": proposer, "draft_length": 4, "eta": 20.0}
    with drafting_here(20) as here:
        before = answer(here, way).token_ids
        failing = Failing(server, rounds, silent)
        with served(failing.routes) as url:
            with drafting_there(RemoteDrafter(url, on_lost="target", timeout=2.0 if silent else 60.0)) as engine:
                found = answer(engine, way)
            failing.gone.set()
        lost = found.stats.remote
        at = lost.target_from
        assert lost.lost and 0 <= at <= len(before) and (rounds or at == 0)
        assert found.token_ids[:at] == before[:at]
        # What follows is what the target writes behind that.
        assert found.token_ids[at:] == greedily(here.explain(PROMPT).target_ids, found.token_ids, at)
        assert len(found.token_ids) == NEW or found.finish_reason == "eos"


def test_a_lost_server_is_an_error_by_default(server):
    failing = Failing(server, 1, silent=True)
    with served(failing.routes) as url:
        with drafting_there(RemoteDrafter(url, timeout=1.5)) as engine:
            with pytest.raises(RemoteError, match=r"within 1\.5 s", check=coded("remote.timeout")):
                answer(engine, {"law": "augmented", "proposer": "none"})
            assert engine.running_requests == 0
        failing.gone.set()


def test_other_requests_go_on_while_one_waits_for_its_drafter(server):
    failing = Failing(server, 0, silent=True)
    with served(failing.routes) as url:
        with drafting_there(RemoteDrafter(url, timeout=600.0)) as engine:
            waiting = engine.stream(PROMPT, speculation=SpeculationConfig(law="augmented", proposer="none"))
            reader = threading.Thread(target=lambda: list(waiting), daemon=True)
            reader.start()
            assert settled(lambda: engine.running_requests, 1) == 1
            other = engine.generate("hello", speculation=SpeculationConfig(law="target", proposer="none"))
            assert other.token_ids and engine.running_requests == 1  # which still waits
            waiting.close()
            assert settled(lambda: engine.running_requests, 0) == 0
        failing.gone.set()
        reader.join()


def test_a_drafter_that_is_larger_by_default_is_heard(url):
    with RapidEngine(model(0), RemoteDrafter(url, num_parameters=10**9), **SETTINGS) as engine:
        assert engine.generate(PROMPT).stats.law == "augmented"
    with RapidEngine(model(0), RemoteDrafter(url, num_parameters=1), **SETTINGS) as engine:
        assert engine.generate(PROMPT).stats.law == "target"
