"""`rapid chat`, in a terminal and in a pipe, on a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rapid_integrations.cli.app import app
from rapid_integrations.cli.console import INTERRUPTED
from rapid_integrations.cli.interruption import AnswerStopped, StopWish
from tests.toys.command_line import CliRunner

OPTIONS = ["--target", "./model", "--embedder", "./embedder", "--dtype", "float32"]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "TERM": "xterm",
    "COLUMNS": "100",
    "PYTHONPATH": os.pathsep.join(sys.path),
}

pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")


@pytest.fixture
def chat(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*arguments, text=""):
        return CliRunner().invoke(app, ["chat", *OPTIONS, "--max-new-tokens", "8", *arguments], input=text)

    return run


@pytest.fixture
def terminal(folder):
    from tests.toys.terminal import Terminal

    def start(*arguments):
        command = [sys.executable, "-m", "rapid_integrations", "chat", *OPTIONS, *arguments]
        return Terminal(command, cwd=folder, env=ENVIRONMENT)

    return start


# --- a pipe ---------------------------------------------------------------------------------------------------------


def test_one_question_a_line(chat):
    result = chat("document.md", "--json", text="where is the cat?\n\n  and the dog?  \n")
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["question"] for answer in answers] == ["where is the cat?", "and the dog?"]
    first, second = answers
    # The document was read before the first question, and the first turn before the second.
    assert first["stats"]["cached_prompt_tokens"] > 0.9 * first["usage"]["prompt_tokens"]
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    assert second["stats"]["cached_prompt_tokens"] > 0.95 * first["usage"]["prompt_tokens"]
    plain = chat("document.md", text="where is the cat?\nand the dog?\n")
    assert plain.stdout == "".join(answer["text"] + "\n\n" for answer in answers)
    assert "document.md: 4," in plain.stderr and "tokens read" in plain.stderr


def test_the_first_answer_is_that_of_ask(chat):
    in_chat = json.loads(chat("document.md", "--json", text="where?\n").stdout)
    asked = CliRunner().invoke(app, ["ask", *OPTIONS, "--max-new-tokens", "8", "document.md", "-q", "where?", "--json"])
    assert in_chat["text"] == json.loads(asked.stdout)["text"]


def test_the_end_of_the_input_ends_it(chat):
    result = chat("document.md")
    assert result.exit_code == 0 and result.stdout == ""


def test_commands(chat):
    lines = ("/stats", "where is the cat?", "/stats", "/forget", "/help", "/foo", "/foo/bar?", "/quit", "never asked")
    result = chat("document.md", text="\n".join(lines))
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n\n") == 2  # the question, and the one that only looks like a command
    for said in ("no answer has ended yet", "What the drafter read", "Statistics", "forgotten", "/quit", "called /foo"):
        assert said in result.stderr
    again = chat("document.md", "--json", text="a?\n/forget\na?\n")
    first, second = (json.loads(line) for line in again.stdout.splitlines())
    assert first["usage"] == second["usage"] and first["text"] == second["text"]


def test_an_error_costs_one_question(chat):
    too_long = "much too long " * 400
    result = chat("document.md", "--json", text=f"where?\n{too_long}\nwhere?\n")
    assert result.exit_code == 1  # something was not answered
    first, failed, last = (json.loads(line) for line in result.stdout.splitlines())
    assert failed == {"question": too_long.strip(), "error": failed["error"]}
    assert failed["error"].startswith("ContextOverflowError: ")
    assert last["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    assert "error: ContextOverflowError" in result.stderr


def test_a_line_that_is_no_text(chat):
    result = chat("document.md", "--json", text=b"a?\n\xff\xfe?\nb?\n")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row.get("question") for row in rows] == ["a?", None, "b?"]
    assert rows[1]["error"] == "PromptError: line 2 of standard input is not UTF-8 text"


@pytest.mark.filterwarnings("ignore:a prompt for:RuntimeWarning")  # the chat says it in its own words, too
def test_documents_that_no_cache_has_room_for(chat, monkeypatch):
    result = chat("document.md", text="where?\nwhy?\n")
    assert "read again" not in result.stderr
    monkeypatch.setattr("rapid_integrations.engine.engine.memory_budget", lambda *_: 1000)
    result = chat("document.md", text="where?\nwhy?\n")
    assert result.exit_code == 0 and result.stderr.count("the documents were read again") == 1


def test_an_answer_that_was_withheld_has_read_nothing(chat):
    result = chat("document.md", "--abstain-below", "1", text="where is Caesar's first horse?\n/stats\n")
    assert result.exit_code == 0 and result.stdout == "The documents do not say.\n\n"
    assert "read again" not in result.stderr and "target read" not in result.stderr
    assert "ended by abstained" in result.stderr


def test_turns_that_leave_are_said(chat):
    result = chat("document.md", text=f"{'filling ' * 180}\n" * 4)
    assert result.exit_code == 0, result.output
    assert "the oldest turn left the conversation" in result.stderr


def test_several_documents_and_traces(chat, tmp_path):
    result = chat("document.md", "other.txt", "--trace", str(tmp_path / "traces"), text="where?\nwhy?\n")
    assert result.exit_code == 0, result.output
    pages = sorted(path.name for path in (tmp_path / "traces").iterdir())
    assert pages == ["1.html", "2.html"]
    assert "other.txt" in (tmp_path / "traces" / "2.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-",), "standard input brings the questions"),
        (("missing.md",), "missing.md cannot be read: No such file"),
        (("empty.txt",), "empty.txt is empty"),
        (("document.md", "--max-new-tokens", "9000"), "holds 8,192 tokens"),
        (("document.md", "--trace", "document.md"), "document.md cannot be a folder"),
        (("document.md", "--draft-length", "long"), "draft_length='long'"),
        (("document.md", "--encoding", "latin-0"), "encoding='latin-0' is unknown"),
    ],
)
def test_errors_before_the_first_question(chat, arguments, said):
    result = chat(*arguments, text="where?\n")
    assert result.exit_code == 1 and result.stdout == ""
    assert said in " ".join(result.stderr.split()), result.stderr
    assert "Traceback" not in result.stderr


# --- a terminal -----------------------------------------------------------------------------------------------------


def test_a_session_in_a_terminal(terminal):
    with terminal("document.md", "--max-new-tokens", "3000", "--law", "target", "--proposer", "none") as session:
        at = session.wait_for("\n> ")
        session.type("where is the cat?\n")
        at = session.wait_for("where is the cat?\n", after=at)
        shown = len(session.shown)
        while len(session.shown.strip()) < shown + 20:  # the answer has begun
            session._read(0.1)
        session.type("\x03")
        at = session.wait_for("stopped\n> ", after=at)
        session.type("\x1b[A")  # the question before, from the history
        at = session.wait_for("where is the cat?", after=at)
        session.type(" really?\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x15/stats\x0b\n")  # line editing
        at = session.wait_for("no answer has ended yet\n> ", after=at)
        session.type("\x04")
        assert session.end() == 0
        assert "Traceback" not in session.shown


AGAIN = "(Ctrl-C again leaves; so does /quit)\n"


def press_until(session, text, after):
    """Press Ctrl-C; CPython loses one that comes between readline's prompt and its wait for a key."""
    for _ in range(10):
        session.type("half a ques")
        session.wait_for("half a ques", after=after)  # readline has shown it, so it waits for the next key
        session.type("\x03")
        if session.shows_within(text, 5.0, after):  # another one would be one too many
            return session.wait_for(text, after=after)
    raise AssertionError(f"no {text!r}:\n{session.shown}")


@pytest.mark.slow  # CPython may lose the first one, and seconds pass until the next
def test_ctrl_c_at_the_prompt_drops_the_line_and_twice_it_leaves(terminal):
    with terminal("document.md") as session:
        at = session.wait_for("\n> ")
        for _ in range(2):  # what was done in between makes it the first one again
            at = session.wait_for("> ", after=press_until(session, AGAIN, at))
            session.type("/stats\n")
            at = session.wait_for("no answer has ended yet\n> ", after=at)
        at = press_until(session, AGAIN, at)
        press_until(session, "interrupted", session.wait_for("> ", after=at))
        assert session.end() == INTERRUPTED
        assert "Traceback" not in session.shown


def test_ctrl_c_stops_an_answer_at_any_moment_of_it(terminal):
    with terminal("document.md", "--max-new-tokens", "3000", "--draft-length", "1") as session:
        at = session.wait_for("\n> ")
        for delay in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):  # in the retrieval, in the prefill, in the answer
            session.type("where is the cat?\n")
            at = session.wait_for("where is the cat?", after=at)
            time.sleep(delay)
            session.type("\x03")
            at = session.wait_for("stopped\n> ", AGAIN + "> ", after=at)  # an answer may end of itself before it comes
        session.type("/quit\n")
        assert session.end() == 0
        assert "Traceback" not in session.shown


@pytest.mark.process
def test_ctrl_c_ends_a_pipe(folder):
    command = [sys.executable, "-m", "rapid_integrations", "chat", *OPTIONS, "document.md", "--max-new-tokens", "3000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, **pipes) as process:
        process.stdin.write(b"where is the cat?\nand the dog?\n")
        process.stdin.close()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        process.stdout.read()
        assert process.wait(60) == INTERRUPTED
    assert b"interrupted" in stderr and b"Traceback" not in stderr


def test_a_wish_to_stop_is_granted_when_it_is_safe():
    with StopWish() as wish:
        wish()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(AnswerStopped):
            wish("prefill", 1, 2)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with wish:
        wish()  # begins anew
