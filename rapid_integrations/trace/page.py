"""One self-contained HTML page about one answer. It runs no script and fetches nothing.

Text of documents and models is data: Jinja escapes it, and the page's own policy forbids scripts and requests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.outputs import Candidate, Origin, Trace, TracedToken
from rapid_integrations.trace import plots

if TYPE_CHECKING:
    from rapid_integrations.outputs import Completion, RetrievedChunk

FOLDED_CHARACTERS = 2000  # a stretch that the drafter did not read is folded from this length on

ORIGINS: dict[Origin, tuple[str, str]] = {
    "drafter": ("drafted, accepted", "drafted by the drafter, accepted"),
    "draft_lm": ("drafted by draft_lm, accepted", "drafted by the small draft model, accepted"),
    "prompt_lookup": ("looked up, accepted", "copied from an earlier place with the same words, accepted"),
    "other": ("proposed, accepted", "proposed by another proposer, accepted"),
    "corrected": ("corrected", "in place of a draft token that was rejected"),
    "bonus": ("bonus", "added after a draft that was accepted whole"),
    "target": ("not drafted", "nothing had been drafted"),
}


def write_html(path: str | os.PathLike[str], completion: Completion, names: Sequence[str] | None = None) -> None:
    """Write the page about an answer that was generated with `trace=True`.

    Args:
        path: the file. An existing one is replaced.
        completion: the answer.
        names: names of the documents, one for each context.

    Raises:
        ConfigurationError: nothing was recorded, the number of names is wrong, or the file cannot be written.
    """
    page = render_html(completion, names)
    try:
        Path(path).write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}. Name another file") from error


def render_html(completion: Completion, names: Sequence[str] | None = None) -> str:
    """Return the page. See `write_html`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    trace = completion.trace
    if trace is None:
        raise ConfigurationError("nothing was recorded of this answer: generate it with trace=True")
    if names is None:
        several = len(trace.contexts) > 1
        names = [f"Document {number}" if several else "Document" for number in range(1, len(trace.contexts) + 1)]
    if len(names) != len(trace.contexts):
        raise ConfigurationError(f"{len(names)} names for {len(trace.contexts)} documents: give one each")
    environment = Environment(
        loader=PackageLoader("rapid_integrations.trace", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"chance": _chance, "token": _token}
    tokens = trace.tokens
    counts = Counter(token.origin for token in tokens)
    return environment.get_template("page.html.jinja").render(
        trace=trace,
        tokens=tokens,
        completion=completion,
        origins=ORIGINS,
        counts={origin: counts[origin] for origin in ORIGINS if counts[origin]},
        changed=sum(token.changed_by_retrieval for token in tokens),
        rows=_probability_rows,
        documents=[_Document(name, _stretches(trace, completion, index)) for index, name in enumerate(names)],
        chunks=[(number, names[chunk.context], chunk) for number, chunk in enumerate(completion.retrieved, 1)],
        bars=plots.acceptance_bars(trace.rounds),
        times=plots.time_areas(trace.rounds),
        plot=plots,
        folded=FOLDED_CHARACTERS,
    )


@dataclass(frozen=True)
class _Stretch:
    """A part of a document: a chunk with its number, or the text between chunks."""

    text: str
    number: int | None = None
    chunk: RetrievedChunk | None = None


@dataclass(frozen=True)
class _Document:
    name: str
    stretches: tuple[_Stretch, ...]


def _stretches(trace: Trace, completion: Completion, context: int) -> tuple[_Stretch, ...]:
    text = trace.contexts[context]
    chunks = [(number, chunk) for number, chunk in enumerate(completion.retrieved, 1) if chunk.context == context]
    cuts = sorted({0, len(text), *(at for _, chunk in chunks for at in (chunk.start, chunk.end) if at <= len(text))})
    found = []
    for start, end in pairwise(cuts):
        number, chunk = next(
            ((number, chunk) for number, chunk in chunks if chunk.start <= start and end <= chunk.end), (None, None)
        )
        found.append(_Stretch(text[start:end], number, chunk))
    return tuple(found)


def _probability_rows(token: TracedToken) -> list[tuple[str, str, float | None, tuple[Candidate, ...]]]:
    """Return the lines of a token's table: symbol, model, the token's probability, the best candidates."""
    rows = [
        ("p", "target", token.p, token.top_p),
        ("q", "drafter", token.q, token.top_q),
        ("p\u0302", "augmented", token.p_hat, token.top_p_hat),
    ]
    return [row for row in rows if row[2] is not None]


def _chance(probability: float | None) -> str:
    """Return a probability to three digits. A value close to 1 or 0 is never shown as "1" or "0"."""
    if probability is None:
        return "-"
    if 0.9995 <= probability < 1.0:
        return ">0.999"
    return f"{probability:.3f}" if probability >= 0.0005 or probability == 0.0 else f"{probability:.0e}"


def _token(text: str) -> str:
    """Return a token's text with its white space at the edges and its line breaks visible."""
    if not text.strip(" "):
        return "␣" * len(text) or "(empty)"
    inner = text.strip(" ")
    before, _, after = text.partition(inner)
    return "␣" * len(before) + inner.replace("\n", "⏎").replace("\t", "⇥") + "␣" * len(after)


def _shown(value: Any) -> Any:
    """Make control characters visible, because HTML does not allow them. The template's own markup passes."""
    if type(value) is not str:
        return value
    return "".join(
        chr(0x2400 + ord(character)) if character < " " and character not in "\n\t" else
        "\ufffd" if "\ud800" <= character <= "\udfff" or "\x7f" <= character < "\xa0" else character
        for character in value
    )  # fmt: skip
