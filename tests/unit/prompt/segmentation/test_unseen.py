"""Layouts that somebody wrote who had not seen the segmenter: most are found, and what is not is plain, hardly ever wrong.

`unseen_layouts.json` and the two files beside it hold them, `composed` puts others together by chance, and
`unseen_without_context.json` holds long prompts in which nothing was retrieved.
"""

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from rapid_integrations.prompt.segmentation import segment
from rapid_integrations.prompt.segmentation.settling import settled, without_lead_in
from tests.unit.prompt.segmentation.composed import layout as composed
from tests.unit.prompt.segmentation.documents import KINDS as ALL_KINDS
from tests.unit.prompt.segmentation.documents import document
from tests.unit.prompt.segmentation.generator import fill

HERE = Path(__file__).parent
WITHOUT = json.loads((HERE / "unseen_without_context.json").read_text("utf-8"))
KINDS = ("prose", "markdown", "code", "table", "log", "dialogue", "prose with questions", "label words", "German")
QUESTIONS = (
    "What did Keller write about the quarry, and why does it matter for the ferry?",
    "Who sold the mill to Haas?",
    "In which year was the archive inspected?",
)
REQUESTS = (
    *QUESTIONS,
    "Wer kaufte die Mühle von Moreau?",
    "谁买下了磨坊？",
    "List all owners of the orchard",
    "Can you tell me who paid for the loom? I need it today.",
)


def counted_over(layouts, each):
    """Return how many verdicts are right, plain and wrong over all layouts, and the wrong ones.

    A layout is filled with so many kinds of documents, which change from one layout to the next.
    """
    counted, wrong = Counter(), []
    for at, (name, layout) in enumerate(layouts.items()):
        for number in range(each):
            kind = KINDS[(at + number) % len(KINDS)]
            verdict = fill(name, layout, document(kind, 11), QUESTIONS[(at + number) % len(QUESTIONS)]).verdict()
            counted[verdict if verdict in ("right", "plain") else "wrong"] += 1
            if verdict not in ("right", "plain"):
                wrong.append((name, kind, verdict))
    return counted, wrong


@pytest.mark.in_turn(2)
@pytest.mark.long
@pytest.mark.parametrize("each", [1, pytest.param(len(KINDS), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["unseen_layouts", "unseen_layouts_second", "unseen_layouts_sealed"])
def test_unseen_layouts_are_found_or_plain(name, each):
    layouts = json.loads((HERE / f"{name}.json").read_text("utf-8"))
    counted, wrong = counted_over(layouts, each)
    assert counted["right"] >= 0.85 * counted.total(), counted
    assert counted["wrong"] <= 0.02 * counted.total(), (counted, wrong)


@pytest.mark.long
@pytest.mark.parametrize("numbers", [range(150), pytest.param(range(3000), marks=pytest.mark.slow)], ids=["few", "all"])
def test_composed_layouts_are_found_or_plain(numbers):
    counted, wrong = Counter(), []
    for number in numbers:
        rng = random.Random(number)
        name, layout = composed(number)
        kind = rng.choice(sorted(ALL_KINDS))
        verdict = fill(name, layout, document(kind, number, rng.choice((2600, 5000))), rng.choice(REQUESTS)).verdict()
        counted[verdict if verdict in ("right", "plain") else "wrong"] += 1
        if verdict not in ("right", "plain"):
            wrong.append((name, kind, verdict))
    assert counted["right"] >= 0.85 * counted.total(), counted
    assert counted["wrong"] <= 0.02 * counted.total(), (counted, wrong)


def test_long_prompts_without_a_context_are_plain():
    taken = [name for name, text in WITHOUT.items() if segment(text).context_spans]
    assert len(taken) <= 0.05 * len(WITHOUT), taken  # most of them: a text of somebody's, and a question about it


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
