"""`rapid cache`: what a folder of cached documents holds."""

import json
import os
import time

import numpy as np
import pytest

from rapid_integrations.cache.prefix_store import PrefixStore
from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner
from tests.toys.token_cache import holding, text

MODEL = "a" * 64


@pytest.fixture
def folder(tmp_path):
    store = PrefixStore(tmp_path)
    for seed, about in ((1, "The handbook"), (2, "[bold]A letter\x1b"), (3, "The minutes")):
        ids = text(seed, 300 + seed)
        store.save(MODEL, np.array(ids), holding(ids), lambda: True, {"model": "tiny", "about": about})
    (tmp_path / "embeddings.sqlite").write_bytes(b"vectors")
    return tmp_path


def cache(folder, *arguments):
    return CliRunner().invoke(app, ["cache", *arguments, "--prefix-cache-dir", str(folder)])


def listed(folder):
    return {row["about"]: row for row in json.loads(cache(folder, "list", "--json").stdout)}


def damage(folder, name):
    (path,) = (path for path in folder.glob("*.safetensors") if name in path.name)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def test_the_list_says_what_is_cached(folder):
    rows = listed(folder)
    assert [rows[about]["tokens"] for about in ("The handbook", "The minutes")] == [301, 303]
    assert {row["model"] for row in rows.values()} == {"tiny"} and not any(row["error"] for row in rows.values())
    shown = cache(folder, "list").stdout
    assert "The handbook" in shown and "just now" in shown and "\x1b" not in shown and "[bold]A letter" in shown


def test_verify_finds_what_is_damaged(folder):
    whole = cache(folder, "verify")
    assert whole.exit_code == 0 and "3 of 3 files are sound" in whole.stderr
    path = damage(folder, listed(folder)["The minutes"]["name"])
    found = cache(folder, "verify")
    assert found.exit_code == 1 and "2 of 3 files are sound" in found.stderr and "damaged" in found.stdout
    assert "does not match its digest" in found.stderr.replace("\n", " ")
    assert cache(folder, "list").exit_code == 0  # the header is sound
    assert "1 removed" in cache(folder, "remove", "--damaged").stderr
    assert not path.exists() and len(listed(folder)) == 2


def test_documents_are_removed_by_name_by_age_or_all(folder):
    name = listed(folder)["The handbook"]["name"]
    assert "1 removed" in cache(folder, "remove", name[:6]).stderr
    assert set(listed(folder)) == {"[bold]A letter\x1b", "The minutes"}
    (path,) = (path for path in folder.glob("*.safetensors") if listed(folder)["The minutes"]["name"] in path.name)
    os.utime(path, (time.time() - 3 * 86400,) * 2)
    assert "3 d ago" in cache(folder, "list").stdout
    assert "1 removed" in cache(folder, "remove", "--older-than", "2").stderr
    assert set(listed(folder)) == {"[bold]A letter\x1b"}
    assert "1 removed" in cache(folder, "remove", "--all").stderr
    assert not list(folder.iterdir())


def test_what_is_no_file_is_listed_as_such(folder):
    (folder / "v1-a-folder.safetensors").mkdir()
    os.mkfifo(folder / "v1-a-pipe.safetensors")
    (folder / "v1-a-loop.safetensors").symlink_to("v1-a-loop.safetensors")
    for command in ("list", "verify"):
        rows = [row for row in json.loads(cache(folder, command, "--json").stdout.splitlines()[0]) if row["error"]]
        assert len(rows) == 3 and sum("is not a file" in row["error"] for row in rows) == 2
    refused = cache(folder, "remove", "--damaged")
    assert refused.exit_code == 1 and "v1-a-folder.safetensors cannot be removed" in refused.stderr
    (folder / "v1-a-folder.safetensors").rmdir()
    assert cache(folder, "remove", "--damaged").exit_code == 0
    assert cache(folder, "verify").exit_code == 0


def test_mistakes_are_taught(folder, tmp_path):
    for arguments, told in (
        (["remove"], "nothing was named to remove"),
        (["remove", "zz"], "no cached document has that name"),
        (["remove", ""], "one of the names is empty"),
    ):
        failed = cache(folder, *arguments)
        assert failed.exit_code == 1 and told in " ".join(failed.stderr.split())
    wrong = cache(folder, "remove", "--older-than", "-1")
    assert wrong.exit_code == 2 and "greater than or equal to 0" in wrong.stderr
    assert len(listed(folder)) == 3
    missing = cache(tmp_path / "nowhere", "list")
    assert missing.exit_code == 1 and "is not a folder" in " ".join(missing.stderr.split())
