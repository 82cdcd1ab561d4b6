"""The command `rapid chat` answers questions from a prompt or a pipe about documents that are read once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rapid_integrations.adapters.progress_view import ProgressView
from rapid_integrations.cli.console import (
    errors_taught,
    make_folder,
    say,
    show_error,
    stderr,
    write_answer,
    write_trace,
)
from rapid_integrations.cli.interruption import AnswerStopped, StopWish
from rapid_integrations.cli.options import (
    DOCUMENTS_HELP,
    OUTPUT,
    DocumentOptions,
    SamplingOptions,
    ServingOptions,
    SpeculationOptions,
)
from rapid_integrations.cli.tables import chunks_table, sources_table, stats_table
from rapid_integrations.errors import ConfigurationError, PromptError, RapidError, public_name

if TYPE_CHECKING:
    from rapid_integrations.documents import Documents
    from rapid_integrations.engine.chat import Chat
    from rapid_integrations.outputs import Completion

_WORTH_TELLING = 100  # tokens of documents that are prefilled again for each question

_HELP = {
    "/forget": "begin a new conversation about the same documents",
    "/stats": "show what the last answer rests on, what the drafter read for it, and the decoding statistics",
    "/help": "show this list",
    "/quit": "leave (end of file does the same)",
}


def chat(
    files: Annotated[list[str], typer.Argument(help=DOCUMENTS_HELP)],
    models: ServingOptions,
    transfer: SpeculationOptions,
    sampling: SamplingOptions,
    reading: DocumentOptions,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML page for each answer to this folder: 1.html, 2.html, ...", rich_help_panel=OUTPUT
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line for each question.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Ask several questions about documents that are read once.

    Type the questions at the prompt, or pipe them in, one per line. Ctrl-C stops an answer. Ctrl-C twice at the prompt
    leaves.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for the same reason as in `rapid ask`
    with errors_taught(), ExitStack() as at_end:
        params, speculation = sampling.params(), transfer.config()
        if "-" in files:
            raise ConfigurationError(
                "standard input brings the questions of a chat, so it cannot be a document: save it in a file first"
            )
        if trace is not None:
            make_folder(trace)
        documents = reading.read(files)
        with ProgressView(stderr) as progress:
            engine = models.load(progress)
            at_end.callback(engine.close)
            from rapid_integrations.engine.chat import Chat

            conversation = Chat(engine, documents, sampling=params, speculation=speculation)
            tokens = conversation.read(progress)
        window = engine.target.context_window
        say(f"{', '.join(documents.names)}: {tokens:,} tokens read, {window:,} fit. /help lists the commands.")
        interactive = sys.stdin.isatty()
        session = _Session(conversation, tokens, documents, trace, as_json, interactive)
        session.run(_typed() if interactive else _piped())
        if session.failed and not interactive:
            raise typer.Exit(1)


class _Session:
    """Answers the questions and runs the commands of one conversation."""

    def __init__(
        self,
        conversation: Chat,
        tokens: int,
        documents: Documents,
        trace: Path | None,
        as_json: bool,
        interactive: bool,
    ) -> None:
        self.failed = False
        self._chat = conversation
        self._documents = documents
        self._trace = trace
        self._as_json = as_json
        # With a pipe, Ctrl-C ends everything, as in other programs.
        self._stop: StopWish | nullcontext[None] = StopWish() if interactive else nullcontext()
        self._asked = 0
        self._last: Completion | None = None
        self._tokens = tokens
        self._told = False  # whether the user knows that the documents are prefilled again for each question

    def run(self, lines: Iterator[Callable[[], str]]) -> None:
        """Handle lines until they end or one of them leaves."""
        for line in lines:
            question = None
            try:
                question = line().strip()
                if question == "/quit":
                    return
                with self._stop:  # to its very end: a Ctrl-C that is late for an answer is not meant for the prompt
                    if question and not self._obeyed(question):
                        self._answer(question)
            except RapidError as error:
                self.failed = True
                if self._as_json:
                    asked = {} if question is None else {"question": question}
                    _write_line({**asked, "error": f"{public_name(error)}: {error}"})
                show_error(error)

    def _obeyed(self, line: str) -> bool:
        word = line.split()[0]
        if not (word.startswith("/") and word[1:].isalpha()):
            return False
        if word not in _HELP:
            say(f"no command is called {word}; there are {', '.join(_HELP)}")
        elif word == "/help":
            for name, meaning in _HELP.items():
                say(f"{name:8} {meaning}")
        elif word == "/forget":
            self._chat.forget()
            say("forgotten; the documents stay read")
        elif self._last is None:
            say("no answer has ended yet")
        else:
            if self._last.sources:
                stderr.print(sources_table(self._last, self._documents))
                stderr.print()
            if self._last.retrieved:
                stderr.print(chunks_table(self._last.retrieved, self._documents.names))
                stderr.print()
            stderr.print(stats_table(self._last))
        return True

    def _answer(self, question: str) -> None:
        self._asked += 1
        try:
            completion = self._last = self._completed(question)
        except AnswerStopped:
            self._show("\n")
            say("stopped")
            return
        self._say_if_read_again(completion)
        if self._as_json:
            _write_line({"question": question, **completion.model_dump(mode="json")})
        self._show("\n\n")
        if completion.finish_reason == "length":
            say("(cut at --max-new-tokens)")
        if self._trace is not None:
            write_trace(self._trace / f"{self._asked}.html", completion, self._documents.names)

    def _say_if_read_again(self, completion: Completion) -> None:
        stats = completion.stats
        if completion.finish_reason == "abstained":  # nobody has read anything
            return
        if not self._told and self._tokens > _WORTH_TELLING and 2 * stats.cached_prompt_tokens < self._tokens:
            self._told = True
            say(
                f"(the documents were read again: their KV caches, {stats.cache_bytes / 2**20:,.0f} MiB, do not fit "
                "into a quarter of the available memory, and nothing else keeps them)"
            )

    def _completed(self, question: str) -> Completion:
        """Show the answer while it is decoded, and return the whole."""
        with ProgressView(stderr) as progress:

            def report(stage: str, done: int, total: int) -> None:
                self._check()
                progress(stage, done, total)

            answer = self._chat.ask(question, trace=self._trace is not None, on_progress=report)
            if answer.left_out:
                turns = "turn" if answer.left_out == 1 else f"{answer.left_out} turns"
                say(f"the oldest {turns} left the conversation: with them it no longer fits the context window")
            first = next(answer)  # after the prefill, whose progress is shown
        with answer:
            self._show(first.text)
            for chunk in answer:
                self._show(chunk.text)
                self._check()
        return answer.completion

    def _check(self) -> None:
        if isinstance(self._stop, StopWish):
            self._stop()

    def _show(self, text: str) -> None:
        if not self._as_json:
            write_answer(text)


def _typed() -> Iterator[Callable[[], str]]:
    """Yield typed lines, with line editing and this run's history if the platform has readline.

    A Ctrl-C may have been meant for an answer that ended just before it. So only a second one leaves.
    """
    edits = sys.stdout.isatty()
    if edits and find_spec("readline"):
        import readline  # noqa: F401  (input() uses it once it is there)

    leaving = False
    while True:
        try:
            if edits:
                line = input("> ")
            else:  # the answers go into a file, and the prompt must not
                sys.stderr.write("> ")
                sys.stderr.flush()
                line = sys.stdin.readline()
                if not line:
                    raise EOFError
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            if leaving:
                raise
            leaving = True
            sys.stderr.write("\n")
            say("(Ctrl-C again leaves; so does /quit)")
            continue
        leaving = False
        yield lambda line=line: line  # type: ignore[misc]


def _piped() -> Iterator[Callable[[], str]]:
    """Yield the lines of standard input; an invalid UTF-8 line is refused when its turn comes."""
    for number, line in enumerate(sys.stdin.buffer, 1):

        def decoded(line: bytes = line, number: int = number) -> str:
            try:
                return line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise PromptError(f"line {number} of standard input is not UTF-8 text") from error

        yield decoded


def _write_line(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
