"""A reader that hangs, crashes or fills the memory ends alone: the file is an error, and the next one is read."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from rapid_integrations.documents import ReadLimits, isolation, read_document, read_documents
from rapid_integrations.errors import ConfigurationError, DocumentError, MissingExtraError
from tests.toys.document_files import docx, paragraph, pdf, pdf_of
from tests.toys.repository import ROOT

pytestmark = pytest.mark.process


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A sitecustomize for the child: files whose bytes hold a word make their reader do what hostile ones do."""
    (tmp_path / "hostile_reader.py").write_text(
        "import os, signal, time\n"
        "from rapid_integrations.documents import child\n"
        "real = child.read_bytes\n"
        "def read_bytes(data, *rest):\n"
        "    if b'HANG' in data: time.sleep(600)\n"
        "    if b'CRASH' in data: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if b'FILL' in data: return [bytearray(2**26) for _ in range(2**10)]\n"
        "    if b'BUG' in data: raise AssertionError('a bug')\n"
        "    if b'PRINT' in data: os.write(1, b'noise'); print('noise', flush=True)\n"
        "    return real(data, *rest)\n"
        "child.read_bytes = read_bytes\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        isolation, "_CHILD", isolation._CHILD.replace("from rapid", "import hostile_reader; from rapid")
    )
    isolation._end_idle()
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("HANG", "CRASH", "FILL", "BUG", "PRINT", "fine"):
        (folder / f"{name}.pdf").write_bytes(pdf(f"words of {name}"))
    yield folder
    isolation._end_idle()


def reason(path, **options):
    with pytest.raises(DocumentError) as caught:
        read_document(path, **options)
    assert caught.value.source == str(path)
    return caught.value.reason


def test_a_file_that_takes_too_long_is_ended(hostile):
    before = psutil.Process().children()
    assert "takes more than 0.5 s to read" in reason(hostile / "HANG.pdf", time_limit_s=0.5)
    assert psutil.Process().children() == before
    assert read_document(hostile / "fine.pdf").text == "words of fine"


def test_a_small_pdf_that_draws_without_end_is_ended(tmp_path):
    """Each of 34 forms draws the next one twice: 17 thousand million words in 7 kB."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"]
    objects.append(
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R "
        "/Resources << /XObject << /X 5 0 R >> >> >>"
    )
    objects.append("<< /Length 5 >>\nstream\n/X Do\nendstream")
    for number in range(6, 40):
        objects.append(
            f"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Resources << /XObject << /X {number} 0 R >> >> "
            "/Length 11 >>\nstream\n/X Do /X Do\nendstream"
        )
    font = "<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
    objects.append(
        f"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] /Resources << /Font {font} >> /Length 30 >>\nstream\n"
        "BT /F1 9 Tf 10 10 Td (x) Tj ET\nendstream"
    )
    data = pdf_of(objects)
    (tmp_path / "endless.pdf").write_bytes(data)
    (tmp_path / "fine.pdf").write_bytes(pdf("words"))
    assert len(data) < 10_000
    documents = read_documents(tmp_path, skip_unreadable=True, time_limit_s=2.0)
    assert [document.text for document in documents] == ["words"]
    (skipped,) = documents.skipped
    assert skipped.reason == "takes more than 2 s to read: split it, or raise the time limit"


def test_a_reader_that_crashes_is_an_error_of_the_file(hostile):
    assert "makes its reader crash (exit status -11)" in reason(hostile / "CRASH.pdf")
    assert read_document(hostile / "fine.pdf").text == "words of fine"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_a_reader_that_fills_the_memory_is_an_error_of_the_file(hostile):
    assert "needs more than 1 GiB of memory" in reason(hostile / "FILL.pdf", limits=ReadLimits(memory_bytes=2**30))
    assert read_document(hostile / "fine.pdf").text == "words of fine"


def test_a_bug_of_a_reader_is_an_error_of_the_file(hostile):
    assert reason(hostile / "BUG.pdf") == "cannot be read: AssertionError: a bug"


def test_what_a_library_prints_is_no_answer(hostile):
    assert read_document(hostile / "PRINT.pdf").text == "words of PRINT"


def test_the_others_of_a_folder_are_read(hostile):
    documents = read_documents(hostile, skip_unreadable=True, time_limit_s=2.0, limits=ReadLimits(memory_bytes=2**30))
    assert [document.text for document in documents] == ["words of fine", "words of PRINT"]
    assert len(documents.skipped) == 4


def test_a_process_is_used_again_and_text_needs_none(tmp_path):
    isolation._end_idle()
    (tmp_path / "a.txt").write_text("Größe")
    assert read_document(tmp_path / "a.txt").text == "Größe" and not isolation._idle
    (tmp_path / "a.docx").write_bytes(docx(paragraph("words")))
    assert read_document(tmp_path / "a.docx").text == "words"
    (first,) = isolation._idle
    assert read_document(tmp_path / "a.docx").text == "words"
    assert isolation._idle == [first]
    os.kill(first._process.pid, signal.SIGKILL)
    first._process.wait()
    assert read_document(tmp_path / "a.docx").text == "words"


def test_what_is_read_is_the_same_as_in_this_process(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("one", None, "three"))
    assert read_document(tmp_path / "a.pdf") == read_document(tmp_path / "a.pdf", time_limit_s=None)


def test_threads_read_at_the_same_time(tmp_path):
    texts = {}

    def read(number):
        path = tmp_path / f"{number}.pdf"
        path.write_bytes(pdf(*(f"page {page} of {number}" for page in range(20))))
        texts[number] = (read_document(path).text, read_document(path, time_limit_s=None).text)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(4):
        expected = "\n\n".join(f"page {page} of {number}" for page in range(20))
        assert texts[number] == (expected, expected)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_time_limit_is_positive(tmp_path, seconds):
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(ConfigurationError, match="time_limit_s"):
        read_document(tmp_path / "a.txt", time_limit_s=seconds)


def test_a_missing_extra_is_named_from_the_other_process(tmp_path, monkeypatch):
    monkeypatch.setattr(
        isolation, "_CHILD", isolation._CHILD.replace("from rapid", "sys.modules['pypdfium2'] = None; from rapid")
    )
    isolation._end_idle()
    (tmp_path / "a.pdf").write_bytes(pdf("words"))
    with pytest.raises(MissingExtraError, check=lambda error: error.extra == "documents"):
        read_document(tmp_path / "a.pdf")
    isolation._end_idle()


def test_nothing_is_left_running(tmp_path):
    (tmp_path / "a.pdf").write_bytes(pdf("words"))
    code = (
        "import sys; from rapid_integrations.documents import read_document, isolation;"
        "print(read_document(sys.argv[1]).text, isolation._idle[0]._process.pid)"
    )
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.pdf")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    text, pid = out.stdout.split()
    assert text == "words" and not out.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_nothing_is_imported_from_the_current_folder(tmp_path):
    (tmp_path / "json.py").write_text("open('imported', 'w')")
    (tmp_path / "a.pdf").write_bytes(pdf("words"))
    code = (
        "import sys; sys.path.remove(''); from rapid_integrations import read_document; "
        "print(read_document('a.pdf').text)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert out.stdout == "words\n" and not (tmp_path / "imported").exists()


def test_a_missing_extra_is_a_reason_to_skip(tmp_path, monkeypatch):
    without = isolation._CHILD.replace("from rapid", "sys.modules['pypdfium2'] = None; from rapid")
    monkeypatch.setattr(isolation, "_CHILD", without)
    isolation._end_idle()
    (tmp_path / "a.pdf").write_bytes(pdf("words"))
    (tmp_path / "b.txt").write_text("plain")
    documents = read_documents(tmp_path, skip_unreadable=True)
    assert [each.text for each in documents] == ["plain"]
    assert documents.skipped[0].reason == "needs pip install 'rapid-integrations[documents]'"
    with pytest.raises(MissingExtraError):
        read_documents(tmp_path)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.pdf").write_bytes(pdf("more"))
    with pytest.raises(MissingExtraError):
        read_documents(tmp_path, skip_unreadable=True)
    isolation._end_idle()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such timer")
def test_a_process_whose_parent_was_killed_ends_by_itself(hostile, monkeypatch):
    hasty = "from rapid_integrations.documents import child; child._GRACE_S = 0.5; serve()"
    hasty = isolation._CHILD.replace("serve()", hasty)
    monkeypatch.setattr(isolation, "_CHILD", hasty)
    child = isolation._take(2**32)
    with monkeypatch.context() as killed, pytest.raises(DocumentError):
        killed.setattr(isolation._Child, "end", lambda self: None)  # as if this process were no more
        child.read((hostile / "HANG.pdf").read_bytes(), "HANG.pdf", None, ReadLimits(), 0.5)
    try:
        assert child._process.wait(timeout=30) == -signal.SIGALRM
    finally:
        child.end()
