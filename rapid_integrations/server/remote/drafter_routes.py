"""The routes by which this server's target drafts for engines on other machines.

- `GET /rapid/v1/drafter` describes the model, `GET /rapid/v1/tokenizer` is its tokenizer.
- `POST /rapid/v1/drafter/open` reads a prompt, `.../read` answers calls of several texts at once, `.../close` forgets
  texts. Their bodies are frames (`frames.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rapid_integrations.config import SamplingParams
from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError, RapidError, RemoteError
from rapid_integrations.server.remote.best_rows import packed
from rapid_integrations.server.remote.departures import unless_gone
from rapid_integrations.server.remote.error_bodies import body_of, status_of
from rapid_integrations.server.remote.frames import MEDIA_TYPE, Array, pack, unpack
from rapid_integrations.server.remote.same_models import SameModels
from rapid_integrations.server.remote.texts import Answered, Call, Opening, Texts
from rapid_integrations.server.remote.tokenizers_sent import digest_of, sent

_MOST_AHEAD = 64  # as `SpeculationConfig.draft_length`
_LAW = ("temperature", "top_k", "top_p", "min_p")


def drafter_routes(engine: RapidEngine) -> list[Route]:
    """Return the routes for an engine. The caller closes it after the server has ended."""
    texts, same = Texts(engine), SameModels(engine)

    async def describe(request: Request) -> Response:
        model = engine.target
        digest = await in_thread(lambda: digest_of(engine.vocabulary))
        _, drafting = await same.digests()
        return JSONResponse(
            {
                "name": model.name,
                "vocab_size": model.vocab_size,
                "context_window": model.context_window,
                "num_parameters": model.num_parameters,
                "weight_bytes": model.weight_bytes,
                "kv_bytes_per_token": model.kv_bytes_per_token,
                "tokenizer": digest,
                "digest": drafting,
            }
        )

    async def tokenizer(request: Request) -> Response:
        return JSONResponse(await in_thread(lambda: sent(engine.vocabulary)))

    async def open_text(request: Request) -> Response:
        try:
            head, arrays = unpack(await request.body())
            name, reused = await unless_gone(texts.open(_opening(head, arrays)), request)
        except Exception as error:
            return _failed(error)
        return JSONResponse({"text": name, "reused": reused})

    async def read(request: Request) -> Response:
        try:
            head, arrays = unpack(await request.body())
            calls = [(str(each["text"]), _call(each, arrays, place)) for place, each in enumerate(head["calls"])]
        except Exception as error:
            return _failed(_as_request_error(error))
        answers = await asyncio.gather(*(texts.read(name, call) for name, call in calls), return_exceptions=True)
        return Response(_answers(answers, [int(each.get("best", 0)) for each in head["calls"]]), media_type=MEDIA_TYPE)

    async def close(request: Request) -> Response:
        try:
            head, _ = unpack(await request.body())
            for name in head["texts"]:
                texts.close(str(name))
        except Exception as error:
            return _failed(_as_request_error(error))
        return JSONResponse({"open": len(texts)})

    return [
        Route("/rapid/v1/drafter", describe, methods=["GET"]),
        Route("/rapid/v1/tokenizer", tokenizer, methods=["GET"]),
        Route("/rapid/v1/drafter/open", same(open_text), methods=["POST"]),
        Route("/rapid/v1/drafter/read", same(read), methods=["POST"]),
        Route("/rapid/v1/drafter/close", close, methods=["POST"]),
    ]


def _opening(head: dict[str, Any], arrays: dict[str, Array]) -> Opening:
    try:
        drawn = SamplingParams(**{name: head[name] for name in _LAW})
        return Opening(
            token_ids=arrays["token_ids"].tolist(),
            new_tokens=int(head["new_tokens"]),
            vocab_size=int(head["vocab_size"]),
            best=int(head["best"]),
            eos=frozenset(int(index) for index in head["eos"]),
            **{name: getattr(drawn, name) for name in _LAW},
        )
    except Exception as error:
        raise _as_request_error(error) from None


def _call(said: dict[str, Any], arrays: dict[str, Array], place: int) -> Call:
    ahead = int(said["ahead"])
    shares = arrays[f"{place}.shares"].tolist()
    if not 0 <= ahead <= _MOST_AHEAD:
        raise ConfigurationError(f"a draft of {ahead:,} tokens: at most {_MOST_AHEAD} are written at once")
    return Call(
        commit=arrays[f"{place}.commit"].tolist(),
        draft=arrays[f"{place}.draft"].tolist(),
        have=int(said["have"]),
        ahead=ahead,
        shares=shares or [0.5] * ahead,
    )


def _answers(answers: list[Answered | BaseException], best: list[int]) -> bytes:
    said: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for place, (each, count) in enumerate(zip(answers, best, strict=True)):
        if isinstance(each, BaseException):
            said.append(body_of(each))
            continue
        said.append({})
        arrays[f"{place}.written"] = np.asarray(each.written, dtype=np.int32)
        arrays[f"{place}.outside"] = np.asarray(each.outside, dtype=np.float64)
        if each.rows:
            arrays |= {f"{place}.{name}": array for name, array in packed(each.rows, count).items()}
    return pack({"answers": said}, arrays)


def _as_request_error(error: Exception) -> Exception:
    if isinstance(error, RapidError):
        return error
    if isinstance(error, (KeyError, TypeError, ValueError, AttributeError)):
        return ConfigurationError(f"the request is none of a RAPID drafter: {type(error).__name__} {error}")
    return error


def _failed(error: Exception) -> Response:
    if isinstance(error, RemoteError) and error.code == "remote.answer":  # what came was no frame
        return JSONResponse(body_of(error), 400)
    return JSONResponse(body_of(error), status_of(error))
