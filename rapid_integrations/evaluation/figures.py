"""Draw a picture for each study from the run's predictions. Bars and bands are 95% bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError, MissingExtraError
from rapid_integrations.evaluation.methods import parse_method
from rapid_integrations.evaluation.statistics import Estimate
from rapid_integrations.evaluation.studies import eta_of, length_of, patterns
from rapid_integrations.evaluation.summary import Decoding, Summary

_RAPID, _OTHER, _INK = "#c25b2a", "#7b8794", "#1f2933"
_LINES = ("#c25b2a", "#2a6f97", "#6a994e", "#8d6a9f", "#1f2933", "#b08900")


def draw(study: str, summary: Summary, path: Path, title: str = "") -> None:
    """Write the picture of a study as PNG.

    Args:
        study: one of `studies.STUDIES`.
        summary: the summary of its predictions, from `studies.summaries`.
        path: the file.
        title: the models of the run, shown above the picture.

    Raises:
        ConfigurationError: it cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(feature="A plot", extra="eval") from error
    figure = Figure(layout="constrained")
    _DRAWERS[study](figure, summary)
    if title:
        figure.suptitle(title, fontsize=9)
    save_picture(figure, path)


def save_picture(figure: Any, path: Path) -> None:
    """Write a picture as PNG. Its folder is created if it is missing.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error


def _main(figure: Any, summary: Summary) -> None:
    """Draw a panel per task with a dot and an interval per method. The last panel is decode speed."""
    panels = len(summary.tasks) + (2 if len(summary.tasks) > 1 else 1)
    rows = -(-panels // 4)
    columns = -(-panels // rows)
    height = 0.34 * len(summary.methods) + 1.0
    figure.set_size_inches(1.6 + 2.3 * columns, 0.4 + height * rows)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for panel, task in zip(axes, summary.tasks, strict=False):
        _dots(panel, summary.methods, [summary.score(method, [task]) for method in summary.methods], 100)
        panel.set_title(f"{task}, n={len(summary.items(task))}", fontsize=8)
        panel.set_xlabel(f"{summary.metric(task)} (%)", fontsize=8)
    used = len(summary.tasks)
    if used > 1:
        _dots(axes[used], summary.methods, [summary.score(method) for method in summary.methods], 100)
        axes[used].set_title("average of the tasks", fontsize=8)
        axes[used].set_xlabel("score (%)", fontsize=8)
        used += 1
    speedups = [summary.decoding(method).speedup for method in summary.methods]
    _dots(axes[used], summary.methods, speedups, 1)
    axes[used].axvline(1, color=_OTHER, linewidth=0.8, linestyle=":")
    axes[used].set_title("decode speed", fontsize=8)
    axes[used].set_xlabel(f"times {summary.baseline}", fontsize=8)
    for panel in axes[used + 1 :]:
        panel.set_visible(False)
    axes[0].invert_yaxis()


def _robustness(figure: Any, summary: Summary) -> None:
    """Draw gain over the baseline and decode speed by eta, with a line each for related and unrelated passages.

    The etas are equally spaced, and "auto" and "nearest" are separate at the end. Answers that are too short to be
    timed have no speed.
    """
    methods = {name: parse_method(name) for name in summary.methods}
    etas = {name: eta for name, method in methods.items() if (eta := eta_of(method)) is not None}
    ordered = sorted(set(etas.values()), key=lambda eta: (isinstance(eta, str), eta))
    gains = {name: summary.gain(name) for name in etas}
    speeds = {name: summary.decoding(name).speedup for name in etas}
    timed = any(speed is not None for speed in speeds.values())
    figure.set_size_inches(6.4, 6.0 if timed else 3.8)
    panels = figure.subplots(2 if timed else 1, 1, sharex=True, squeeze=False, height_ratios=(3, 2) if timed else (1,))
    above, below = panels[0, 0], panels[-1, 0]
    for color, unrelated, label in ((_LINES[0], False, "passages of the document"), (_LINES[1], True, "unrelated")):
        variants = sorted((n for n in etas if methods[n].unrelated == unrelated), key=lambda n: ordered.index(etas[n]))
        fixed = [name for name in variants if not isinstance(etas[name], str)]
        for names in (fixed, *([name] for name in variants if name not in fixed)):
            if not names:
                continue
            at = [ordered.index(etas[name]) + 0.05 * unrelated for name in names]  # side by side where they are equal
            _line(above, at, [gains[name] for name in names], color, label, 100)
            if timed:
                _line(below, at, [speeds[name] for name in names], color, label, 1)
            label = ""
    below.set_xticks(range(len(ordered)), [eta if isinstance(eta, str) else f"{eta:g}" for eta in ordered])
    questions = sum(len(summary.items(task)) for task in summary.tasks)
    _label(above, "" if timed else "eta", f"gain over {summary.baseline} (points), n={questions}", zero=0)
    if timed:
        _label(below, "eta", f"decode speed, times {summary.baseline}", zero=1)
    above.legend(fontsize=8, frameon=False)


def _lengths(figure: Any, summary: Summary) -> None:
    """Draw gain and decode speed by context length, with a line per retrieved length."""
    figure.set_size_inches(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    by_length: dict[int, list[str]] = {}
    for task in summary.tasks:
        by_length.setdefault(length_of(task) or 0, []).append(task)
    lengths = sorted(by_length)
    for number, method in enumerate(name for name in summary.methods if name != summary.baseline):
        color = _LINES[number % len(_LINES)]
        label = f"{parse_method(method).retrieved:,} retrieved"
        _line(left, lengths, [summary.gain(method, by_length[n]) for n in lengths], color, label, 100)
        speeds = [summary.decoding(method, by_length[n]).speedup for n in lengths]
        _line(right, lengths, speeds, color, label, 1)
    _label(left, "context (tokens)", f"gain over {summary.baseline} (points)", zero=0)
    _label(right, "context (tokens)", f"decode speed, times {summary.baseline}", zero=1)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{n:,}" for n in lengths], fontsize=8)
        axes.minorticks_off()
    left.legend(fontsize=8, frameon=False)


def _dialogue(figure: Any, summary: Summary) -> None:
    """Draw quality, acceptance and tokens per second, with a bar per method."""
    figure.set_size_inches(8.4, 0.38 * len(summary.methods) + 1.3)
    quality, acceptance, speed = figure.subplots(1, 3, sharey=True)
    decoding = [summary.decoding(method) for method in summary.methods]
    _dots(quality, summary.methods, [summary.score(method) for method in summary.methods], 100)
    quality.set_xlabel(f"{summary.metric(summary.tasks[0])} (%)", fontsize=8)
    panels: tuple[tuple[Any, Callable[[Decoding], float | None], str], ...] = (
        (acceptance, lambda d: None if d.acceptance is None else 100 * d.acceptance, "accepted (%)"),
        (speed, lambda d: d.tokens_per_s, "decode tokens/s"),
    )
    for axes, value, label in panels:
        for row, (method, each) in enumerate(zip(summary.methods, decoding, strict=True)):
            if (width := value(each)) is not None:
                axes.barh(row, width, color=_color(method), height=0.6)
        axes.set_xlabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    quality.invert_yaxis()


def _success(figure: Any, summary: Summary) -> None:
    """Draw how many questions exactly these methods get right."""
    counts = patterns(summary)
    sets = [set_ for size in range(len(summary.methods) + 1) for set_ in combinations(summary.methods, size)]
    figure.set_size_inches(6.4, 0.36 * len(sets) + 0.9)
    axes = figure.subplots()
    for row, set_ in enumerate(reversed(sets)):
        count = counts.get(set_, 0)
        alone = len(set_) == 1
        color = _OTHER if not alone else _RAPID if set_[0].startswith("rapid") else _INK
        axes.barh(row, count, color=color, height=0.62)
        axes.annotate(str(count), (count, row), xytext=(4, -3), textcoords="offset points", fontsize=8)
    axes.set_yticks(range(len(sets)), [_set_name(set_, len(summary.methods)) for set_ in reversed(sets)], fontsize=8)
    axes.set_xlabel(f"questions of {sum(counts.values())}", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _set_name(methods: Sequence[str], of: int) -> str:
    if not methods:
        return "none is right"
    return "all" if len(methods) == of else " and ".join(methods) + (" alone" if len(methods) == 1 else "")


def _dots(axes: Any, methods: Sequence[str], estimates: Sequence[Estimate | None], scale: float) -> None:
    for row, (method, estimate) in enumerate(zip(methods, estimates, strict=True)):
        if estimate is not None:
            axes.plot([scale * estimate.low, scale * estimate.high], [row, row], color=_color(method), linewidth=2)
            axes.plot([scale * estimate.value], [row], "o", color=_color(method), markersize=5)
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _line(
    axes: Any, x: Sequence[float], estimates: Sequence[Estimate | None], color: str, label: str, scale: float
) -> None:
    points = [(at, e) for at, e in zip(x, estimates, strict=True) if e is not None]
    at = [point for point, _ in points]
    values, lows, highs = ([scale * getattr(e, name) for _, e in points] for name in ("value", "low", "high"))
    axes.plot(at, values, "o-", color=color, label=label, markersize=4, linewidth=1.4)
    axes.fill_between(at, lows, highs, color=color, alpha=0.15, linewidth=0)
    axes.vlines(at, lows, highs, color=color, alpha=0.5, linewidth=1)


def _label(axes: Any, x: str, y: str, zero: float) -> None:
    axes.axhline(zero, color=_INK, linewidth=0.8, linestyle=":")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _color(method: str) -> str:
    return _RAPID if method.startswith("rapid") else _OTHER


_DRAWERS: dict[str, Callable[[Any, Summary], None]] = {
    "main": _main,
    "robustness": _robustness,
    "lengths": _lengths,
    "dialogue": _dialogue,
    "success": _success,
}
