"""The script that makes dialogues of L-Eval's long conversations."""

import importlib.util
import json
import sys

import pytest

from rapid_integrations.evaluation.tasks.dialogue import Dialogue
from tests.toys.repository import ROOT

SCRIPT = ROOT / "benchmarks" / "longchat_dialogues.py"

CONVERSATION = (
    "USER: I would like to discuss the topic of bees. \n ASSISTANT: Gladly.\n USER: Do they sting?\n ASSISTANT: Some\n "
    "ASSISTANT: do. \n USER: Great, this is the end of our discussion on the topic bees, let's go on."
    "USER: I would like to discuss the topic of tides. \n ASSISTANT: Sure.\n USER: Whence?\n ASSISTANT: The moon."
    "USER: I would like to discuss the topic of rust. \n ASSISTANT: Fine.\n USER: Thanks!"
)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("longchat_dialogues", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_conversation_falls_apart_into_its_topics(script):
    found = dict(script.dialogues(CONVERSATION))
    assert list(found) == ["bees", "tides", "rust"]
    assert found["bees"][1] == {"user": "Do they sting?", "bot": "Some do."}
    assert [turn["bot"] for turn in found["tides"]] == ["Sure.", "The moon."]
    assert len(found["rust"]) == 1  # thanks without an answer are no turn


def test_the_file_is_what_the_task_reads(script, tmp_path):
    lines, out = tmp_path / "conversations.jsonl", tmp_path / "mtbench101.jsonl"
    others = CONVERSATION.replace("topic of rust", "topic of rain")
    lines.write_text("\n".join(json.dumps({"input": text}) for text in (CONVERSATION, others)))
    script.main(lines, out)
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [0, 1, 2, 3]
    (questions,) = Dialogue(tmp_path, number=1, questions=2).documents(1000, len)
    assert {item.references for item in questions} == {("Some do.",), ("The moon.",)}
    assert all("Do they sting?\nASSISTANT: Some do." not in item.document for item in questions)
