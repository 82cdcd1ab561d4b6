"""A datastore gains answers: what is appended is found again by all, and damage costs only what it hit."""

import os
import threading

import pytest
from filelock import FileLock

from rapid_integrations.cache import stored_answers as module
from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.stored_answers import StoredAnswers, stored_answers
from rapid_integrations.errors import ConfigurationError

END = 9


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


def opened(index, vocabulary="words", size=100):
    return StoredAnswers(index, vocabulary, size, END)


def behind(answers, tail, depth=3):
    """Return what followed `tail` in any of the texts."""
    found = set()
    for text in answers.texts():
        if isinstance(text, GrowingText):
            found |= {text.after(place, depth) for length, place in text.matches(tail) if length == len(tail)}
        elif (match := text.longest(tail, len(tail))) is not None:
            found |= set(text.behind(match, 99, depth))
    return found


def test_nothing_is_there_at_first(index):
    assert opened(index).texts() == [] and not list(index.parent.iterdir())


def test_an_answer_is_found_again_also_by_others(index):
    one, other = opened(index), opened(index)
    one.add([1, 2, 3, 4])
    assert behind(one, [1, 2]) == behind(other, [1, 2]) == behind(opened(index), [1, 2]) == {(3, 4, END)}
    other.add([7, 1, 2, 8])
    one.add([])
    assert behind(one, [1, 2]) == {(3, 4, END), (8, END)}


def test_many_answers_get_an_index(index, monkeypatch):
    monkeypatch.setattr(module, "_UNINDEXED", 20)
    answers = opened(index)
    for number in range(10, 40):
        answers.add([1, 2, number])
        assert {each[0] for each in behind(answers, [1, 2])} >= {number}
    kinds = [isinstance(each, GrowingText) for each in answers.texts()]
    assert False in kinds and len(kinds) <= 2


def test_the_oldest_answers_go(index, monkeypatch):
    monkeypatch.setattr(module, "MOST_TOKENS", 30)
    answers, other = opened(index), opened(index)
    for number in range(10, 40):
        answers.add([1, 2, number])
    left = {each[0] for each in behind(answers, [1, 2])}
    assert 39 in left and 10 not in left and len(left) <= 10
    assert behind(other, [1, 2]) == behind(answers, [1, 2])  # the file is another one now


def test_what_is_damaged_is_not_used_and_goes_with_the_next_answer(index):
    answers = opened(index)
    answers.add([1, 2, 3])
    whole = answers.path.read_bytes()
    answers.add([1, 2, 4])
    for data in (
        answers.path.read_bytes()[:-1],
        answers.path.read_bytes()[:-1] + b"x",
        whole + b"\x00\x00\x00\x00" * 2,
        whole + b"\xff" * 9,
    ):
        answers.path.write_bytes(data)
        again = opened(index)
        assert behind(again, [1, 2], 1) == {(3,)}
        again.add([1, 2, 5])
        assert behind(opened(index), [1, 2], 1) == {(3,), (5,)}


def test_a_token_that_is_none_is_damage(index):
    opened(index).add([1, 2, 50])
    assert behind(opened(index, size=50), [1, 2]) == set()


def test_another_vocabulary_and_another_file_are_refused(index):
    answers = opened(index)
    answers.add([1, 2, 3])
    with pytest.raises(ConfigurationError, match="another vocabulary"):
        opened(index, "others")
    answers.path.write_bytes(b"a letter to somebody, longer than the beginning of such a file, that must not be lost")
    with pytest.raises(ConfigurationError, match="Move it away"):
        opened(index).add([1])
    assert answers.path.read_bytes().startswith(b"a letter")


def test_a_file_that_was_removed_is_begun_anew(index):
    answers = opened(index)
    answers.add([1, 2, 3])
    answers.path.unlink()
    assert answers.texts() == []
    answers.add([1, 2, 4])
    assert behind(answers, [1, 2]) == {(4, END)}


@pytest.mark.parametrize("left", [0, 1, 20, 79])
def test_a_full_disk_cuts_off_the_beginning_or_an_answer(index, monkeypatch, left):
    """What a full disk leaves of a new file is no file of somebody else, and the next answer mends it."""
    answers, write = opened(index), os.write
    monkeypatch.setattr(module.os, "write", lambda handle, data: write(handle, data[:left]))
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        answers.add([1, 2, 3])
    monkeypatch.undo()
    assert answers.path.stat().st_size == left
    for each in (answers, opened(index)):
        assert each.texts() == [] == each.texts()
    answers.add([1, 2, 4])
    assert behind(answers, [1, 2]) == behind(opened(index), [1, 2]) == {(4, END)}


def test_a_file_that_cannot_be_read(index):
    answers = opened(index)
    answers.path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        opened(index)
    with pytest.warns(RuntimeWarning, match="was not added"):
        answers.add([1, 2])


def test_a_file_that_another_has_put_there_costs_the_answer_and_no_error(index):
    answers = opened(index)
    answers.path.write_text("a letter to somebody")
    with pytest.warns(RuntimeWarning, match="Move it away"):
        answers.add([1, 2])
    assert answers.path.read_text() == "a letter to somebody"


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path):
    answers = opened(tmp_path / "gone" / "index")
    (tmp_path / "gone").write_text("a file in the place of the folder")
    with pytest.warns(RuntimeWarning, match="was not added"):
        answers.add([1, 2])


def test_a_writer_that_does_not_end_costs_the_answer(index, monkeypatch):
    assert module._PATIENCE_S < 1  # the engine's one thread waits, and with it every other answer
    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    answers = opened(index)
    with FileLock(f"{answers.path}.lock"), pytest.warns(RuntimeWarning, match="was not added"):
        answers.add([1, 2, 3])
    answers.add([1, 2, 4])
    assert behind(answers, [1, 2]) == {(4, END)}


def test_threads_append_together(index):
    readers = [opened(index) for _ in range(4)]

    def write(number):
        for each in range(20):
            readers[number].add([1, 2, 10 * number + 10 + each % 10])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = opened(index)
    (text,) = answers.texts()
    assert len(text) == 80 * 4


def test_it_is_the_same_object_for_a_file(index):
    assert stored_answers(index, "words", 9, END) is stored_answers(index, "words", 9, END)
