"""`RemoteEngine`: a `RapidEngine` whose models run on a server."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rapid_integrations.compression import Compression, ContextCompressor
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.life import FREED, EngineLife
from rapid_integrations.engine.prepare import Preparing
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.engine.read_ahead import DocumentsLike, PromptOf, prompts_about
from rapid_integrations.engine.request import Asked, ToolDeclarations
from rapid_integrations.engine.stream import CompletionStream
from rapid_integrations.errors import ConfigurationError, RemoteError, SharedResource
from rapid_integrations.outputs import ReadAhead
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.prompt import TemplateArguments
from rapid_integrations.server.remote.answer import RemoteAnswer
from rapid_integrations.server.remote.link import Link
from rapid_integrations.server.remote.requests_sent import (
    as_bytes,
    compressed_sent,
    options_sent,
    prepared_received,
    prompt_sent,
)
from rapid_integrations.server.remote.tokenizers_sent import received

_LONGEST_READING_S = 6 * 3600.0
SILENCE_S = 60.0  # the server sends a sign of life every 15 s


@dataclass(frozen=True)
class ServedModel:
    """A model of a server, as far as it is known here; see `CausalLM` for the attributes."""

    name: str
    context_window: int
    vocab_size: int
    num_parameters: int
    weight_bytes: int
    kv_bytes_per_token: int


class LeftToServer(BaseException):
    """Raised where the server's own compressor would be used. Callers never see it."""


class ServerCompressor(SharedResource):
    """Stands for the compressor of a server, which searches the context there.

    Parts of this process (a retriever, an embedder) may use it in their place: the prompt is then sent as it is.
    """

    settings_of_answers = ("url",)

    def __init__(self, url: str) -> None:
        self.url = url

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Leave it to the server."""
        raise LeftToServer


class RemoteEngine(RapidEngine):
    """A `RapidEngine` on a server. `RapidEngine.connect` builds it.

    It takes the same requests and gives the same answers, streams, statistics and errors. Context and question travel
    apart. The prompt is rendered, searched and read on the server; a `compressor` of this process is asked here. A
    request begins when it is sent, not with the first piece that is asked for.

    Args:
        url: the server, as in "http://127.0.0.1:8080".
        api_key: sent as a bearer token.
        timeout: seconds in which the server has to give a sign of life while it answers; it gives one every 15.
        sampling, speculation, compression: defaults for its requests; None takes the server's.
        chat_template_kwargs: arguments of the chat template for its requests. They are put over the server's own.

    Raises:
        RemoteError: the server does not answer.
        MissingExtraError: httpx is not installed.
    """

    _elsewhere = "call RapidEngine.connect with the same URL"

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = SILENCE_S,
        sampling: SamplingParams | None = None,
        speculation: SpeculationConfig | None = None,
        compression: CompressionConfig | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        own = TemplateArguments(chat_template_kwargs)
        self._life = EngineLife()
        self._streams = weakref.WeakSet()
        self._borrowed = False
        self._link = Link(url, api_key, timeout)
        try:
            said = self._get("/rapid/v1/engine")
            self.vocabulary = received(self._get("/rapid/v1/tokenizer"), self._link.url)
            models = {role: ServedModel(**numbers) for role, numbers in said["models"].items()}
            self.target: Any = models["target"]
            self.drafter: Any = models.get("drafter", self.target)
            self.draft_lm: Any = models.get("draft_lm")
            self.sampling = sampling or SamplingParams(**said["sampling"])
            self.speculation = speculation or SpeculationConfig(**said["speculation"])
            self.compression = compression or CompressionConfig(**said["compression"])
            self._reuses_prefixes = bool(said["reuses_prefixes"])
            self._link.expect(said.get("digest"))
            self._template_arguments = TemplateArguments(said["chat_template_kwargs"]).overridden(own)
        except (KeyError, TypeError, AttributeError, ConfigurationError) as error:
            self._link.close()
            raise RemoteError(
                f"{self._link.url} does not describe an engine as this version of rapid-integrations knows it "
                f"({error}): install the same version on both machines",
                code="answer",
            ) from None
        except BaseException:
            self._link.close()
            raise
        try:
            self.vocabulary.require_arguments(self._template_arguments)
        except ConfigurationError:
            self._link.close()
            raise
        self.compressor = ServerCompressor(self._link.url)
        self._vocab_size = min(model.vocab_size for model in models.values())
        self._preparing = Preparing(self.vocabulary, self.target.name, self._vocab_size)

    @property
    def url(self) -> str:
        """The server."""
        return self._link.url

    @property
    def reuses_prefixes(self) -> bool:
        """Whether the server skips the prefill of tokens that a prompt shares with the start of an earlier one."""
        return self._reuses_prefixes

    @property
    def running_requests(self) -> int:
        """The number of requests that the server answers, whoever they belong to."""
        return int(self._state("running"))

    @property
    def waiting_requests(self) -> int:
        """The number of requests that wait at the server until there is memory for their KV caches."""
        return int(self._state("waiting"))

    @property
    def kv_bytes(self) -> int:
        """Bytes of all KV caches of the server."""
        return int(self._state("kv_bytes"))

    def fingerprints(self) -> dict[str, str | None]:
        """Return a fingerprint of the present weights of each of the server's models."""
        self.require_open()
        return {str(name): value for name, value in self._get("/rapid/v1/fingerprints").items()}

    def clear_prefix_cache(self) -> NoReturn:
        """Raise an error: others use the server's cache, too.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("the prefix cache is the server's: clear it there")

    def alone(self, model: Any) -> NoReturn:
        """Raise an error: the models are the server's.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("a single model of a remote engine cannot be taken out of it: load it here")

    def compute(self, *arguments: Any) -> NoReturn:
        """Raise an error: computations of other kinds run where the models are.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("a remote engine computes nothing here")

    def _explained(self, asked: Asked) -> PreparedPrompt:
        said = {name: value for name, value in _said(asked).items() if name not in ("sampling", "speculation")}
        answer = self._link.start(self._link.exchange("/rapid/v1/explain", content=self._body(asked, said))).result()
        return prepared_received(json.loads(answer), self._link.url)

    def read(
        self,
        documents: DocumentsLike,
        *,
        prompt: PromptOf | None = None,
        compression: CompressionConfig | None = None,
        compressor: ContextCompressor | None = None,
        tools: ToolDeclarations | None = None,
        apply_chat_template: bool | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> ReadAhead:
        """Have the server read documents ahead; see `RapidEngine.read`. It gives no progress.

        Raises:
            ConfigurationError: a compressor of this process was given, whose index the server cannot use.
        """
        self.require_open()
        if compressor is not None and compressor is not self.compressor:
            raise ConfigurationError("a compressor of this process indexes nothing on the server: leave it out")
        first, second = prompts_about(documents, prompt)
        options = {
            "compression": compression or self.compression,
            "tools": None if tools is None else [dict(each) for each in tools],
            "apply_chat_template": apply_chat_template,
            "chat_template_kwargs": self._arguments(chat_template_kwargs, apply_chat_template).as_dict() or None,
        }
        body = as_bytes({"prompt": prompt_sent(first), "second": prompt_sent(second), **options_sent(options)})
        answer = self._link.start(self._link.exchange("/rapid/v1/read", content=body, timeout=_LONGEST_READING_S))
        return ReadAhead.model_validate_json(answer.result())

    async def aread(self, documents: DocumentsLike, **options: Any) -> ReadAhead:
        """Do what `read` does without blocking the event loop."""
        return await in_thread(lambda: self.read(documents, **options))

    def _answered(self, asked: Asked, trace_candidates: int | None) -> CompletionStream:
        trace = trace_candidates is not None
        said = {**_said(asked), "trace": trace, "trace_candidates": trace_candidates}
        body = self._body(asked, said, stream=True, progress=asked.report is not ignore_progress)
        answer = RemoteAnswer(self._link, body)
        prepared = answer.prepared(asked.report)
        stream = CompletionStream(prepared, answer, answer, self._life, asked.report, answer if trace else None)
        self._streams.add(stream)
        return stream

    def close(self) -> None:
        """End this connection's requests; safe to call again. The server goes on."""
        if not self._life.end():
            return
        self._link.close()
        for stream in tuple(self._streams):
            stream.end_with_engine()
        for name in FREED:
            vars(self).pop(name, None)

    def _body(self, asked: Asked, options: dict[str, Any], **more: bool) -> bytes:
        """Return the body of a request. A compressor of this process is asked now, unless no drafter would read."""
        said: dict[str, Any] = {"prompt": prompt_sent(asked.prompt), **options_sent(options), **more}
        plain = asked.speculation.law == "target" and asked.speculation.proposer in ("none", "prompt_lookup")
        if asked.compressor is not self.compressor and not plain:
            try:
                prepared = self._preparing.prompts(asked)
            except LeftToServer:
                prepared = None
            if prepared is not None and prepared.compression is not None:
                said["compressed"] = compressed_sent(prepared.target.contexts, prepared.compression)
        return as_bytes(said)

    def _state(self, name: str) -> Any:
        self.require_open()
        return self._get("/rapid/v1/state")[name]

    def _get(self, path: str) -> dict[str, Any]:
        body = self._link.start(self._link.exchange(path)).result()
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise RemoteError(f"{self._link.url}{path} is no answer of a RAPID server", code="answer")
        return said


def _said(asked: Asked) -> dict[str, Any]:
    """Return what a request says of its settings, for `options_sent`."""
    names = ("sampling", "speculation", "compression", "tool_choice", "parallel_tool_calls", "apply_chat_template")
    tools = None if asked.tools is None else [dict(each) for each in asked.tools]
    arguments = asked.chat_template_kwargs.as_dict() or None
    return {**{name: getattr(asked, name) for name in names}, "tools": tools, "chat_template_kwargs": arguments}
