import contextlib
import http.server
import signal
import subprocess
import sys
import threading
import venv
import warnings
import zipfile
from dataclasses import replace

import pytest

from rapid_integrations.errors import DownloadError, ModelLoadError
from rapid_integrations.packaged import wheels as packaged
from rapid_integrations.packaged.catalogue import Member
from tests.toys.tiny_wheel import FILES, NAME, left_behind, register, sha256, wheel_of, write_wheel

pytestmark = pytest.mark.process


def offline(monkeypatch):
    monkeypatch.setattr(sys, "executable", "no-such-python")


def put_by_hand(home):
    for path, content in FILES.items():
        target = home / "models" / "tiny" / path.removeprefix("tiny_model/model/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


COMPLETE = ["models/tiny/sub/config.json", "models/tiny/weights.bin"]


def test_a_pull_unpacks_the_listed_files_only(home, model, real_pip):
    assert not packaged.is_pulled(NAME)
    seen = []
    path = packaged.pull(NAME, lambda *report: seen.append(report))
    assert path == packaged.path_of(NAME) == home / "models" / "tiny"
    assert left_behind(home) == COMPLETE
    assert (path / "weights.bin").read_bytes() == FILES["tiny_model/model/weights.bin"]
    assert packaged.is_pulled(NAME)
    total = model.size_bytes
    assert seen[0] == ("download tiny", 0, total) and seen[-1] == ("download tiny", total, total)
    assert [entry.name for entry in (home / "models").iterdir()] == ["tiny"]


def test_the_entry_may_be_a_file(home, model, monkeypatch):
    register(monkeypatch, replace(model, entry="weights.bin"))
    assert packaged.pull(NAME) == home / "models" / "tiny" / "weights.bin"


def test_a_second_pull_needs_no_pip(monkeypatch):
    packaged.pull(NAME)
    offline(monkeypatch)
    seen = []
    assert packaged.pull(NAME, lambda *report: seen.append(report)) == packaged.path_of(NAME)
    assert seen == []


def test_the_checksum_is_computed_once_and_after_changes(home, monkeypatch):
    path = packaged.pull(NAME)
    assert packaged.is_pulled(NAME)
    computed = []
    checksum = packaged._sha256
    monkeypatch.setattr(packaged, "_sha256", lambda file: computed.append(file.name) or checksum(file))
    assert packaged.is_pulled(NAME) and computed == []
    weights = path / "weights.bin"
    weights.write_bytes(weights.read_bytes())  # the same content, written again
    assert packaged.is_pulled(NAME) and "weights.bin" in computed
    assert packaged.is_pulled(NAME) and computed.count("weights.bin") == 1
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")
    assert not packaged.is_pulled(NAME)


def test_files_put_there_by_hand_are_as_good(home, monkeypatch):
    offline(monkeypatch)
    put_by_hand(home)
    assert packaged.pull(NAME) == packaged.path_of(NAME)


@pytest.mark.parametrize("damage", [b"weightz" * 100, b"weights" * 99, None], ids=["changed", "cut off", "missing"])
def test_a_damaged_file_is_fetched_again_with_a_warning(home, damage):
    put_by_hand(home)
    weights = packaged.pull(NAME) / "weights.bin"
    assert packaged.is_pulled(NAME)
    if damage is None:
        weights.unlink()
    else:
        weights.write_bytes(damage)
    assert not packaged.is_pulled(NAME)
    with pytest.warns(RuntimeWarning, match="tiny in .* damaged or incomplete"):
        packaged.pull(NAME)
    assert weights.read_bytes() == FILES["tiny_model/model/weights.bin"]
    assert left_behind(home) == COMPLETE


def test_force_fetches_again_without_a_warning(home):
    put_by_hand(home)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        packaged.pull(NAME, lambda *report: seen.append(report), force=True)
    assert seen
    assert left_behind(home) == COMPLETE


def test_another_wheel_than_expected_is_not_opened(home, wheel, monkeypatch):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny_model/malicious.py", "")
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("opened"))
    found = sha256(wheel.read_bytes())
    with pytest.raises(DownloadError, match=rf"(?s)SHA-256 is {found}, not .*Nothing was unpacked"):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_a_wrong_file_in_the_wheel_is_refused(home, model, monkeypatch):
    members = dict(model.members)
    path = "tiny_model/model/sub/config.json"
    members[path] = members[path]._replace(sha256="0" * 64)
    register(monkeypatch, replace(model, members=members))
    with pytest.raises(DownloadError, match=f"{path} .* has the SHA-256 {sha256(b'{}')}, not 0000"):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_a_file_that_the_wheel_lacks_is_a_fault_of_the_release(home, model, monkeypatch):
    register(monkeypatch, replace(model, members={"tiny_model/nothing": Member("nothing", "0" * 64, 1)}))
    with pytest.raises(DownloadError, match="tiny_model/nothing.*fault of this release"):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_a_failing_pip_is_quoted_with_the_way_out(home, wheel, real_pip):
    wheel.unlink()
    with pytest.raises(DownloadError) as caught:
        packaged.pull(NAME)
    message = str(caught.value)
    assert "tiny (tiny-model==1.0)" in message
    assert "No matching distribution found for tiny-model==1.0" in message
    assert "`rapid models pull tiny`" in message
    assert f"copy the content of tiny_model/model to {home / 'models' / 'tiny'}" in message
    assert left_behind(home) == []


def test_an_environment_without_pip_says_how_to_get_it(tmp_path, real_pip, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    (python,) = [path for path in (tmp_path / "bare").glob("*/python*") if path.stem == "python"]
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DownloadError, match="no pip. `.*python.* -m ensurepip`"):
        packaged.pull(NAME)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "file"))
    assert not packaged.is_pulled(NAME)
    with pytest.raises(DownloadError, match="tiny cannot be written to .*file.models.tiny: .*RAPID_HOME"):
        packaged.pull(NAME)


def test_a_full_disk_is_an_error_of_ours(home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaged.shutil, "copyfileobj", full)
    with pytest.raises(DownloadError, match="No space left on device.* MB there.*RAPID_HOME"):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_an_unknown_name_lists_the_known_ones():
    for function in (packaged.pull, packaged.path_of, packaged.is_pulled):
        with pytest.raises(ModelLoadError, match="no packaged model 'tinny'; there are: tiny"):
            function("tinny")


def test_another_process_may_win_the_race(home, monkeypatch):
    unpack = packaged._unpack

    def slow_unpack(model, wheels, into):
        unpack(model, wheels, into)
        if not packaged.is_pulled(NAME):
            monkeypatch.setattr(packaged, "_unpack", unpack)
            packaged.pull(NAME)

    monkeypatch.setattr(packaged, "_unpack", slow_unpack)
    assert packaged.pull(NAME) == packaged.path_of(NAME)
    assert packaged.is_pulled(NAME)
    assert [entry.name for entry in (home / "models").iterdir()] == ["tiny"]
    assert left_behind(home) == COMPLETE


class _Stalling(http.server.BaseHTTPRequestHandler):
    """Offers the wheel, sends its beginning, and waits for the client to hang up."""

    def do_GET(self):
        self.send_response(200)
        if self.path.endswith(".whl"):
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 100_000)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # Ctrl-C
            with contextlib.suppress(ConnectionError):
                self.rfile.read(1)
            self.server.hung_up.set()
        else:
            page = b'<a href="tiny_model-1.0-py3-none-any.whl">tiny</a>'
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    def log_message(self, *_):
        pass


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_an_interrupted_pull_leaves_neither_files_nor_a_process(home, real_pip, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stalling)
    server.hung_up = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        monkeypatch.setattr(packaged, "_STOP_S", 60)
        monkeypatch.setattr(subprocess.Popen, "kill", lambda _: pytest.fail("killed, not asked to stop"))
        with pytest.raises(KeyboardInterrupt):
            packaged.pull(NAME)
        assert server.hung_up.wait(60)  # pip is gone
    finally:
        server.shutdown()
        server.server_close()
    assert list((home / "models").iterdir()) == []


def test_pips_own_progress_is_passed_on(tmp_path, wheel, model, monkeypatch):
    """A stand-in for a pip of 24.1 or later, which prints raw progress."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *"--progress-bar raw"*) ;; *) exit 9 ;; esac\n'
        "echo Collecting tiny\necho Progress 0 of 10\necho Progress 7 of 10\n"
        f'while [ "$1" != --dest ]; do shift; done\nmkdir -p "$2" && cp "{wheel}" "$2"\n'
    )
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(packaged.importlib.metadata, "version", lambda _: "24.1")
    seen = []
    packaged.pull(NAME, lambda *report: seen.append(report))
    size = model.size_bytes
    assert [report[1:] for report in seen] == [(0, size), (0, 10), (7, 10), (size, size)]


# --- a file that is cut into several wheels ---------------------------------------------------------------------------

PARTS = (b"first " * 50, b"second " * 40, b"third")


@pytest.fixture
def in_parts(wheel, model, monkeypatch):
    """The registry with a model whose one file comes in three wheels."""
    paths = [f"part_{number}/data/part" for number in range(3)]
    files = [
        write_wheel(wheel.parent, f"part_{number}", {path: content})
        for number, (path, content) in enumerate(zip(paths, PARTS, strict=True))
    ]
    whole = b"".join(PARTS)
    member = Member("model.gguf", sha256(whole), len(whole), continued=tuple(paths[1:]))
    wheels = tuple(wheel_of(path) for path in files)
    changed = replace(model, wheels=wheels, members={paths[0]: member}, entry="model.gguf")
    register(monkeypatch, changed)
    return changed


def test_the_parts_of_a_file_are_joined(home, in_parts):
    seen = []
    assert packaged.pull(NAME, lambda *report: seen.append(report)).read_bytes() == b"".join(PARTS)
    assert left_behind(home) == ["models/tiny/model.gguf"]
    done = [report[1] for report in seen]
    assert done == sorted(done) and done[-1] == in_parts.size_bytes
    assert {report[2] for report in seen} == {in_parts.size_bytes}


def test_a_part_that_cannot_be_fetched_leaves_nothing(home, in_parts, wheel):
    (wheel.parent / "part_1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(DownloadError, match=r"(?s)part-1==1.0.*join part_0/data/part and part_1/data/part, part_2"):
        packaged.pull(NAME)
    assert left_behind(home) == []


def test_a_wrong_part_is_refused(home, in_parts, wheel):
    write_wheel(wheel.parent, "part_2", {"part_2/data/part": b"thirD"})
    with pytest.raises(DownloadError, match=r"(?s)part-2==1.0.*Nothing was unpacked"):
        packaged.pull(NAME)
    assert left_behind(home) == []


@pytest.mark.parametrize(("version", "known"), [("23.2.1", False), ("24.0", False), ("24.1b1", True), ("26.3", True)])
def test_raw_progress_is_asked_of_a_pip_that_knows_it(version, known, monkeypatch):
    monkeypatch.setattr(packaged.importlib.metadata, "version", lambda _: version)
    assert packaged._pip_reports_progress() is known


def test_models_lie_in_the_users_cache_unless_told_otherwise(tmp_path, monkeypatch):
    assert packaged.models_dir() == tmp_path / "home" / "models"
    monkeypatch.setenv("RAPID_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert packaged.models_dir().name == "models"
    assert "rapid-integrations" in packaged.models_dir().parts


def test_the_registry_is_sound(monkeypatch):
    monkeypatch.undo()
    assert set(packaged.MODELS) == {"smollm2-135m-instruct", "gemma-3-270m", "all-minilm-l6-v2"}
    for model in packaged.MODELS.values():
        assert all("==" in wheel.requirement for wheel in model.wheels)
        for checksum in (each.sha256 for each in (*model.wheels, *model.members.values())):
            assert len(bytes.fromhex(checksum)) == 32
        files = [member.file for member in model.members.values()]
        assert len(set(files)) == len(files)
        assert model.entry == "." or model.entry in files
        assert not any(file.startswith("/") or ".." in file for file in files)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "gemma-3-270m", "all-minilm-l6-v2"])
def test_the_real_wheels_are_what_the_registry_says(name, real_pip, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("RAPID_HOME", str(tmp_path))
    assert packaged.pull(name).exists()
    assert packaged.is_pulled(name)
