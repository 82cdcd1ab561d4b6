"""What shows progress: on a terminal, in a notebook without widgets, in a log file; in every form of a host's call."""

import asyncio
import io
import json
import threading
import time

import pytest
from rich.console import Console

from rapid_integrations.adapters import progress_view as terminal
from rapid_integrations.adapters.progress_view import NotebookProgress, ProgressView
from tests.toys.embedder import HashEmbedder
from tests.toys.models import words
from tests.toys.puppet import puppet

DOCUMENT = words(1, 120)
QUESTION = "which words are there?"


class Screen(io.StringIO):
    """Standard error of a terminal."""

    def console(self, **settings):
        return Console(file=self, **{"force_terminal": True, "width": 80, "force_jupyter": False, **settings})


class TestOnATerminal:
    def test_it_comes_with_the_work_and_goes_when_it_is_done(self):
        screen = Screen()
        view = ProgressView(screen.console())
        with view as progress:
            assert screen.getvalue() == ""
            progress("embed", 0, 10)
            assert "embed" in screen.getvalue() and view._line is not None
            progress("embed", 10, 10)
            assert view._line is None  # without anybody's help
            progress("prefill", 5, 10)
            assert "prefill" in screen.getvalue()
        assert view._line is None and "\x1b[?25h" in screen.getvalue()[-40:]  # and the cursor is back

    def test_an_error_takes_it_away_and_the_block_may_be_entered_again(self):
        view = ProgressView(Screen().console())
        with pytest.raises(RuntimeError), view:
            view("embed", 1, 10)
            raise RuntimeError
        assert view._line is None
        with view:
            view("embed", 1, 10)
            assert view._line is not None
        assert view._line is None

    def test_what_is_done_at_once_is_not_shown(self):
        screen = Screen()
        with ProgressView(screen.console()) as progress:
            progress("embed", 10, 10)
            progress("prefill", 0, 0)
        assert screen.getvalue() == ""

    def test_of_several_at_once_one_is_shown(self):
        screens = [Screen(), Screen()]
        first, second = (ProgressView(screen.console()) for screen in screens)
        with first, second:
            first("embed", 1, 2)
            second("embed", 1, 2)
        assert screens[0].getvalue() and not screens[1].getvalue()
        with second:
            second("embed", 1, 2)
        assert screens[1].getvalue()

    def test_reports_from_many_threads(self):
        screen = Screen()
        with ProgressView(screen.console()) as progress:
            threads = [
                threading.Thread(target=lambda name=name: [progress(name, done, 50) for done in range(51)])
                for name in ("a", "b", "c")
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert progress._line is None
        assert ProgressView._one_at_a_time.acquire(blocking=False)
        ProgressView._one_at_a_time.release()


def test_in_a_log_file_nothing_is_written():
    log = Screen()
    with ProgressView(log.console(force_terminal=False)) as progress:
        progress("embed", 1, 2)
    assert log.getvalue() == ""


class Calls:
    """Runs one form of a host's call and returns once it has been read to the end."""

    @staticmethod
    def langchain_chat(engine):
        from langchain_rapid import ChatRapid

        model = ChatRapid(engine=engine, show_progress=True)
        told = {"rapid_context": DOCUMENT, "rapid_query": QUESTION}
        return Calls.langchain(model, told)

    @staticmethod
    def langchain_llm(engine):
        from langchain_rapid import RapidLLM

        return Calls.langchain(RapidLLM(engine=engine, show_progress=True), {"rapid_context": DOCUMENT})

    @staticmethod
    def langchain(model, told):
        async def stream(prompt):
            return [piece async for piece in model.astream(prompt, **told)]

        return {
            "invoke": lambda prompt: model.invoke(prompt, **told),
            "stream": lambda prompt: list(model.stream(prompt, **told)),
            "ainvoke": lambda prompt: asyncio.run(model.ainvoke(prompt, **told)),
            "astream": lambda prompt: asyncio.run(stream(prompt)),
        }

    @staticmethod
    def llama_index(engine):
        from llama_index.core.llms import ChatMessage

        from llama_index_rapid import RapidLLM

        model = RapidLLM(engine=engine, show_progress=True)

        async def read(stream):
            return [piece async for piece in await stream]

        def chat(prompt):
            return [ChatMessage(role="user", content=prompt)]

        return {
            "complete": model.complete,
            "chat": lambda prompt: model.chat(chat(prompt)),
            "stream_complete": lambda prompt: list(model.stream_complete(prompt)),
            "stream_chat": lambda prompt: list(model.stream_chat(chat(prompt))),
            "acomplete": lambda prompt: asyncio.run(model.acomplete(prompt)),
            "achat": lambda prompt: asyncio.run(model.achat(chat(prompt))),
            "astream_complete": lambda prompt: asyncio.run(read(model.astream_complete(prompt))),
            "astream_chat": lambda prompt: asyncio.run(read(model.astream_chat(chat(prompt)))),
        }


@pytest.fixture
def shown(monkeypatch):
    """What a terminal showed of each view, as views come."""
    screens = []

    def console(**_):
        screens.append(Screen())
        return screens[-1].console()

    monkeypatch.setattr(terminal, "Console", console)
    return screens


@pytest.mark.parametrize("host", ["langchain_chat", "langchain_llm", "llama_index"])
def test_every_form_shows_it(host, shown):
    """The prompt is read in the first piece of a stream: that is shown as well, and gone with it."""
    engine = puppet(*["Fine."] * 8, embedder=Slow(), prefix_cache_bytes=0)
    for number, (form, call) in enumerate(getattr(Calls, host)(engine).items()):
        shown.clear()
        call(f"Read this.\n\n{DOCUMENT} {words(20 + number, 400)}\n\n{QUESTION}")
        assert any("prefill" in screen.getvalue() for screen in shown), form
        assert ProgressView._one_at_a_time.acquire(blocking=False), f"{form} leaves it on the screen"
        ProgressView._one_at_a_time.release()


def test_it_is_off_by_default(shown):
    from langchain_rapid import ChatRapid

    ChatRapid(engine=puppet("Fine.")).invoke(DOCUMENT)
    assert not shown


def test_a_request_that_fails_takes_it_away(shown):
    from langchain_rapid import ChatRapid

    class Failing(HashEmbedder):
        def embed(self, texts, on_progress=None):
            on_progress(1, len(texts) + 1)
            raise RuntimeError("no embeddings today")

    chat = ChatRapid(engine=puppet("Fine.", embedder=Failing()), show_progress=True)
    with pytest.raises(RuntimeError):
        chat.invoke(f"{DOCUMENT}\n{QUESTION}", rapid_context=DOCUMENT)
    assert ProgressView._one_at_a_time.acquire(blocking=False)
    ProgressView._one_at_a_time.release()


class Slow(HashEmbedder):
    """Reports as embedders do."""

    def embed(self, texts, on_progress=None):
        if on_progress is not None:
            on_progress(0, len(texts))
            on_progress(len(texts), len(texts))
        return super().embed(texts)


class TestInANotebook:
    def test_one_line_that_says_how_long_it_took(self, monkeypatch):
        import IPython.display

        written = []

        class Handle:
            def update(self, data, raw):
                written.append(data["text/plain"])

        def display(data, raw, display_id):
            written.append(data["text/plain"])
            return Handle()

        monkeypatch.setattr(IPython.display, "display", display)
        monkeypatch.setattr(NotebookProgress, "_DELAY_S", 0.01)
        with ProgressView(Console(force_jupyter=True, file=io.StringIO())) as progress:
            progress("embed", 1, 4)
            assert not written  # nothing for what is done at once
            time.sleep(0.02)
            progress("embed", 2, 4)
            progress("embed", 4, 4)
        assert written[0].startswith("embed 2 of 4 (") and written[-1].startswith("embed 4 of 4 (")

    @pytest.mark.slow  # the cookbooks run in a real one, too
    @pytest.mark.process
    def test_a_real_one_without_widgets(self, monkeypatch):
        """No warning, no empty output: nothing for a short request, one line for a longer one; in both hosts."""
        nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
        monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        cells = [
            "from langchain_rapid import RapidLLM\nfrom llama_index_rapid import RapidLLM as Other\n"
            "from tests.toys.puppet import puppet\nfrom tests.toys.models import words\n"
            "from rapid_integrations.adapters import progress_view as terminal\n"
            "one = RapidLLM(engine=puppet('Fine.', 'Fine.'), show_progress=True)\n"
            "other = Other(engine=puppet('Fine.', 'Fine.'), show_progress=True)",
            "_ = one.invoke('How?'), other.complete('How?')",
            "terminal.NotebookProgress._DELAY_S = 0.0",
            "_ = one.invoke(words(1, 900) + '\\n\\nHow?')",
            "_ = other.complete(words(1, 900) + '\\n\\nHow?')",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
        outputs = [cell.outputs for cell in notebook.cells]
        assert outputs[:3] == [[], [], []], json.dumps(outputs[:3])[:2000]
        for (line,) in outputs[3:]:
            assert line["output_type"] == "display_data"
            assert line["data"]["text/plain"].startswith(("embed", "prefill"))
