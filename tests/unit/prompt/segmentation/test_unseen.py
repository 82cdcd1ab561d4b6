"""Layouts that somebody wrote who had not seen the segmenter: most are found, and what is not is plain, hardly ever wrong.

`unseen_layouts.json` holds them, `unseen_without_context.json` long prompts in which nothing was retrieved.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from rapid_integrations.prompt.segmentation import segment
from rapid_integrations.prompt.segmentation.shape import settled, without_lead_in
from tests.unit.prompt.segmentation.documents import document
from tests.unit.prompt.segmentation.generator import fill

HERE = Path(__file__).parent
LAYOUTS = json.loads((HERE / "unseen_layouts.json").read_text("utf-8"))
WITHOUT = json.loads((HERE / "unseen_without_context.json").read_text("utf-8"))
KINDS = ("prose", "markdown", "code", "table", "log", "dialogue", "prose with questions", "label words", "German")
ASKED = "What did Keller write about the quarry, and why does it matter for the ferry?"


@pytest.mark.long
@pytest.mark.parametrize("kinds", [("prose", "table"), pytest.param(KINDS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_unseen_layouts_are_found_or_plain(kinds):
    counted, wrong = Counter(), []
    for name, layout in LAYOUTS.items():
        for kind in kinds:
            verdict = fill(name, layout, document(kind, 11), ASKED).verdict()
            counted[verdict if verdict in ("right", "plain") else "wrong"] += 1
            if verdict not in ("right", "plain"):
                wrong.append((name, kind, verdict))
    assert counted["right"] >= 0.78 * counted.total(), counted
    assert counted["wrong"] <= 0.025 * counted.total(), (counted, wrong)


def test_long_prompts_without_a_context_are_plain():
    taken = [name for name, text in WITHOUT.items() if segment(text).context_spans]
    assert len(taken) <= 0.2 * len(WITHOUT), taken  # most of them: a text of somebody's, and a question about it


@pytest.mark.parametrize(
    ("written", "question"),
    [
        ("According to the document above, Who built it?", "Who built it?"),
        ("Now, ¿quién compró el molino?", "¿quién compró el molino?"),
        ("With that in mind: 谁买下了磨坊？", "谁买下了磨坊？"),
        ("In 1954, who bought it?", "In 1954, who bought it?"),
    ],
)
def test_a_clause_before_a_question_is_the_templates(written, question):
    assert without_lead_in(written) == question


@pytest.mark.parametrize(
    ("written", "labelled", "question"),
    [
        ("Who built it?\nShow the formula used.", True, "Who built it?"),
        ("Who built it??", True, "Who built it?"),
        ("text = 'Who built it?'", True, "Who built it?"),
        ("1. Who built it?", True, "Who built it?"),
        ("Hello team,\nWho built it?\nKind regards,", True, "Who built it?"),
        ("Citizen's request\nWho built it?", False, "Who built it?"),
        ("a) Who built it?\nb) Which sentence says so?", True, None),
        ("It was sold. It was bought. It stood there. Who built it?", True, None),
        ("tell me about the mill\nShow the formula used.", True, None),
        (".", True, None),
        ("answer =", True, None),
    ],
)
def test_the_question_alone_or_nothing(written, labelled, question):
    assert settled(written, labelled) == question
