"""A request to an engine as JSON: the arguments of `RapidEngine.stream`, with context and question apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rapid_integrations.compression import Compression, ContextCompressor
from rapid_integrations.compression.chunker import Chunk
from rapid_integrations.compression.selection import ScoredChunk
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig, refuse_unknown
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.errors import ConfigurationError, RemoteError
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt, PromptLike, RenderedPrompt

_SETTINGS = {"sampling": SamplingParams, "speculation": SpeculationConfig, "compression": CompressionConfig}
_KINDS = {
    "tools": list,
    "tool_choice": str,
    "parallel_tool_calls": bool,
    "apply_chat_template": bool,
    "chat_template_kwargs": dict,
    "trace": bool,
    "trace_candidates": int,
}
_PLAIN = tuple(_KINDS)
_OWN = ("prompt", "compressed", "stream", "progress")
_OF_READING = ("compression", "tools", "apply_chat_template", "chat_template_kwargs")
_PROMPT = "rapid_prompt"  # the key under which a `Prompt` stands


def as_bytes(value: object) -> bytes:
    """Return a value as JSON. Halves of surrogate pairs, which no other encoding of text allows, are kept."""
    return json.dumps(value, separators=(",", ":"), allow_nan=True).encode("ascii")


def prompt_sent(prompt: PromptLike) -> Any:
    """Return a prompt as JSON: a string, {"rapid_prompt": {...}}, or messages whose contents are either or parts."""
    if isinstance(prompt, (str, Prompt)):
        return _content_sent(prompt)
    return [{key: _content_sent(value) if key == "content" else value for key, value in m.items()} for m in prompt]


def prompt_received(said: Any) -> PromptLike:
    """Return the prompt that `prompt_sent` made JSON of.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(said, list):
        if not all(isinstance(message, dict) for message in said):
            raise ConfigurationError("prompt: messages are objects with a role and a content")
        return [
            {key: _content_received(value) if key == "content" else value for key, value in message.items()}
            for message in said
        ]
    found = _content_received(said)
    if not isinstance(found, (str, Prompt)):
        raise ConfigurationError('prompt: give a string, {"rapid_prompt": {...}}, or a list of messages')
    return found


def _content_sent(content: Any) -> Any:
    if isinstance(content, Prompt):
        return {_PROMPT: content.model_dump()}
    if isinstance(content, (list, tuple)):
        return [_content_sent(part) for part in content]
    return content


def _content_received(said: Any) -> Any:
    if isinstance(said, dict) and set(said) == {_PROMPT} and isinstance(said[_PROMPT], dict):
        return Prompt(**{name: _tuples(value) for name, value in said[_PROMPT].items()})
    return [_content_received(part) for part in said] if isinstance(said, list) else said


def options_sent(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `RapidEngine.stream` but the prompt as JSON; those that are None are left out."""
    said: dict[str, Any] = {name: options[name] for name in _PLAIN if options.get(name) is not None}
    said |= {name: options[name].model_dump(mode="json") for name in _SETTINGS if options.get(name) is not None}
    return said


@dataclass(frozen=True)
class Asking:
    """A request that has been received.

    Attributes:
        prompt, options: the arguments of `RapidEngine.stream`.
        stream: whether the answer is wanted piece by piece.
        progress: whether progress is wanted, too.
    """

    prompt: PromptLike
    options: dict[str, Any]
    stream: bool
    progress: bool


def received(body: bytes) -> Asking:
    """Return the request in a body.

    Raises:
        ConfigurationError: the body is no request, or a setting is unknown or invalid.
    """
    try:
        return _received(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the body of the request is no JSON that can be read: {error}") from None


def reading_received(body: bytes) -> tuple[PromptLike, PromptLike, dict[str, Any]]:
    """Return the prompts of two questions about documents that are to be read ahead, and the arguments of the reading.

    Raises:
        ConfigurationError: the body is no request, or a setting is unknown or invalid.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the body of the request is no JSON that can be read: {error}") from None
    if not isinstance(said, dict) or "second" not in said:
        raise ConfigurationError('the body of the request is an object with a "prompt" and a "second" one')
    second = prompt_received(said.pop("second"))
    asking = _received(said)
    options = {name: value for name, value in asking.options.items() if name in _OF_READING}
    return asking.prompt, second, options


def _received(said: Any) -> Asking:
    if not isinstance(said, dict) or "prompt" not in said:
        raise ConfigurationError('the body of the request is an object with a "prompt"')
    refuse_unknown("a request", said, [*_OWN, *_SETTINGS, *_PLAIN])
    options: dict[str, Any] = {name: said[name] for name in _PLAIN if said.get(name) is not None}
    for name, kind in _KINDS.items():
        if name in options and not isinstance(options[name], kind):
            raise ConfigurationError(f"{name} has to be a {kind.__name__} as JSON has it, not {options[name]!r:.80}")
    if not all(isinstance(each, dict) for each in options.get("tools", ())):
        raise ConfigurationError("tools: each declaration is an object")
    for name, settings in _SETTINGS.items():
        if (given := said.get(name)) is not None:
            if not isinstance(given, dict):
                raise ConfigurationError(f"{name} has to be an object, not {given!r:.80}")
            options[name] = settings(**given)
    if (compressed := said.get("compressed")) is not None:
        options["compressor"] = GivenCompression(compressed)
    prompt = prompt_received(said["prompt"])
    return Asking(prompt, options, bool(said.get("stream", False)), bool(said.get("progress", False)))


# --- the result of a retrieval that the client made -----------------------------------------------------------------


def compressed_sent(contexts: Sequence[str], compression: Compression) -> dict[str, Any]:
    """Return the result of the client's own retrieval as JSON, with what tells whether it belongs to the contexts."""
    return {"contexts": _digest(contexts), **asdict(compression)}


class GivenCompression(ContextCompressor):
    """A compressor that returns what the client retrieved, from parts of its own: a retriever, an embedder.

    Args:
        said: what `compressed_sent` returned.

    Raises:
        ConfigurationError: it is no such thing.
    """

    def __init__(self, said: Any) -> None:
        try:
            self._contexts = str(said["contexts"])
            self._compression = _compression({name: value for name, value in said.items() if name != "contexts"})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"compressed: this is no result of a retrieval ({error})") from None

    def compress(
        self,
        contexts: Sequence[str],
        query: str,
        config: CompressionConfig,
        on_progress: OnProgress | None = None,
    ) -> Compression:
        """Return it.

        Raises:
            ConfigurationError: the server finds another context in the prompt than the client did.
        """
        if _digest(contexts) != self._contexts or len(self._compression.texts) != len(contexts):
            raise ConfigurationError(
                "the server finds another context in this prompt than the client, who has searched it: both need the "
                "same version of rapid-integrations, or the prompt has to say where its context is (Prompt)"
            )
        return self._compression


def _digest(contexts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(contexts).encode("utf-8", "surrogatepass")).hexdigest()


# --- the prompts of both models -------------------------------------------------------------------------------------


def prepared_sent(prepared: PreparedPrompt) -> dict[str, Any]:
    """Return both prompts as JSON."""
    return asdict(prepared)


def prepared_received(said: Any, url: str) -> PreparedPrompt:
    """Return the prompts that `prepared_sent` made JSON of.

    Raises:
        RemoteError: they are damaged.
    """
    try:
        compression = said["compression"]
        return PreparedPrompt(
            RenderedPrompt(**{name: _tuples(value) for name, value in said["target"].items()}),
            RenderedPrompt(**{name: _tuples(value) for name, value in said["drafter"].items()}),
            said["target_ids"],
            said["drafter_ids"],
            None if compression is None else _compression(compression),
            said["query_coverage"],
            said["answerable"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RemoteError(f"{url} sent prompts that cannot be read: {error!r}", code="answer") from None


def _compression(said: Mapping[str, Any]) -> Compression:
    selected = tuple(
        tuple(ScoredChunk(Chunk(**each["chunk"]), each["score"]) for each in of_context)
        for of_context in said["selected"]
    )
    texts = tuple(str(text) for text in said["texts"])
    return Compression(**{**said, "texts": texts, "selected": selected})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
