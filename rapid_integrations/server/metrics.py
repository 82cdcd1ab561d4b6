"""What an operator watches, in Prometheus's format. No text and no name of a client is a label."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rapid_integrations.outputs import CompletionChunk

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "rapid_requests", "Requests by route and status", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "rapid_request_seconds", "Time of a request", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._first = Histogram(
            "rapid_first_token_seconds",
            "Time to the first token, from the beginning of the request's preparation",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter("rapid_tokens", "Tokens by kind", ["kind"], registry=self._registry)
        self._cancelled = Counter("rapid_cancelled", "Answers whose client left", registry=self._registry)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is asked for when the metrics are read."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def cancelled(self) -> None:
        """Count an answer whose client left."""
        self._cancelled.inc()

    def answer(self, last: CompletionChunk) -> None:
        """Count a complete answer by its last piece."""
        if last.usage is None or last.stats is None:
            return
        self._tokens.labels("prompt").inc(last.usage.prompt_tokens)
        self._tokens.labels("cached_prompt").inc(last.stats.cached_prompt_tokens)
        self._tokens.labels("completion").inc(last.usage.completion_tokens)
        self._tokens.labels("drafted").inc(last.stats.drafted_tokens)
        self._tokens.labels("accepted").inc(last.stats.accepted_tokens)
        self._first.observe(last.stats.time_to_first_token_s)

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self._registry)
