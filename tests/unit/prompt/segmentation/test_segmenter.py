"""Ready strings of many layouts, languages and documents: the question, and nothing else, is searched for, and the document,
and nothing that is instruction, is compressed.
"""

from collections import Counter
from pathlib import Path

import pytest

from rapid_integrations.prompt.segmentation import segment
from rapid_integrations.prompt.segmentation.marks import find_marks
from rapid_integrations.prompt.segmentation.question import labelled_question
from tests.unit.prompt.segmentation.documents import KINDS, document
from tests.unit.prompt.segmentation.generator import case, fill
from tests.unit.prompt.segmentation.held_out import HELD_OUT, SECOND
from tests.unit.prompt.segmentation.layouts import LAYOUTS, QUESTIONS

ASKED = "What did Keller write about the quarry, and why does it matter for the ferry?"


def verdicts(name, layout, seed, *kinds):
    return {kind: fill(name, layout, document(kind, seed), ASKED).verdict() for kind in kinds}


@pytest.mark.in_a_hurry(30)
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout(name):
    kinds = ("prose", "markdown")
    assert verdicts(name, LAYOUTS[name], 1, *kinds) == dict.fromkeys(kinds, "right")


@pytest.mark.in_a_hurry(30)
@pytest.mark.parametrize("name", {**HELD_OUT, **SECOND})
def test_each_held_out_layout(name):
    kinds = ("prose", "numbered passages", "German")
    assert verdicts(name, {**HELD_OUT, **SECOND}[name], 2, *kinds) == dict.fromkeys(kinds, "right")


def tally(cases):
    """Return how many verdicts are right, plain and wrong, and the wrong ones."""
    counted, wrong = Counter(), []
    for made in cases:
        verdict = made.verdict()
        counted[verdict if verdict in ("right", "plain") else "wrong"] += 1
        if verdict not in ("right", "plain"):
            wrong.append((made.name, verdict))
    return counted, wrong


def require(counted, wrong, right=0.99, worst=0.005):
    """At least so many are right, and nearly all of the others "plain", which is never wrong."""
    assert counted["right"] >= right * counted.total(), (counted, wrong[:10])
    assert counted["wrong"] <= max(1, worst * counted.total()), (counted, wrong[:10])


@pytest.mark.long
def test_a_sample_of_generated_prompts():
    require(*tally(case(seed) for seed in range(20_000, 20_120)))


@pytest.mark.slow
def test_ten_thousand_generated_prompts():
    require(*tally(case(seed) for seed in range(10_000)))


@pytest.mark.slow
def test_held_out_layouts_with_all_documents():
    layouts = {**HELD_OUT, **SECOND}
    cases = [
        fill(f"{name} / {kind}", layout, document(kind, 3), question)
        for name, layout in layouts.items()
        for kind in KINDS
        for question in QUESTIONS[:3]
    ]
    require(*tally(cases), right=0.95)  # the rest asks without a question mark, and nothing names it


class TestQuestionsFirst:
    """The kind of LangGraph's agentic RAG tutorial."""

    LAYOUT = LAYOUTS["en agentic rag"]

    @pytest.mark.parametrize("question", QUESTIONS)
    def test_the_question_is_searched_for_and_the_instruction_stays(self, question):
        made = fill("", self.LAYOUT, document("prose", 4), question)
        found = segment(made.text)
        ((start, end),) = found.context_spans
        assert found.method == "delimiters" and found.query == question
        assert made.text[start:end] == made.document
        assert made.text[:start] == self.LAYOUT[: self.LAYOUT.index("{context}")].replace("{question}", question)

    @pytest.mark.parametrize(
        "ending", ["\n\nQuestion: something else\nAnswer: yes.", "\nContext: nothing.\nQuestion: who?"]
    )
    def test_a_document_that_asks_does_not_change_the_question(self, ending):
        text = document("prose", 4) + ending + " The end."
        found = segment(fill("", LAYOUTS["en hub rag-prompt"], text, ASKED).text)
        assert found.query == ASKED
        ((start, end),) = found.context_spans
        assert end - start >= len(text) - 2


def test_two_blocks_of_context_and_instructions_keep_their_order():
    made = fill(
        "",
        "Rules: be brief.\n\nProfile:\nname: Grey\n\nQuestion: {question}\n\nContext:\n{context}\n\nAnswer:",
        document("prose", 5),
        ASKED,
    )
    assert made.verdict() == "right"


@pytest.mark.parametrize(
    "layout",
    [
        "Answer from the context.\nQ: What is the capital of France? A: Paris.\nContext:\n{context}\n\nQ: {question} A:",
        "Question: What is 2+2? Answer: 4\n\nContext:\n{context}\n\nQuestion: {question} Answer:",
        "Frage: Was ist 2+2? Antwort: 4\n\nKontext:\n{context}\n\nFrage: {question} Antwort:",
        "Q: Open on Sundays? A: No.\nQ: What is a ticket? A: 5 euros.\n\nContext:\n{context}\n\n{question}",
    ],
)
def test_an_example_that_is_answered_on_its_line_is_not_the_question(layout):
    for kind in ("prose", "German"):
        assert fill("", layout, document(kind, 11).strip(), ASKED).verdict() == "right"


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Question: Which of them is red? A: apples B: bananas\nAnswer:", True),
        ("Question: Which of them is red? A:", True),
        ("Question: Which of them is red? A: The apples.", False),
        ("Question: Which of them is red? Existing answer: The apples.", True),
    ],
)
def test_choices_and_cues_behind_a_question_are_not_its_answer(text, asked):
    found = labelled_question(text, find_marks(text), 0, len(text), ("question",))
    assert (found is not None) == asked and (found is None or "Which of them is red?" in found.query)


def test_short_prompts_are_read_whole():
    made = fill("", LAYOUTS["en hub rag-prompt"], "The mill burnt down.", ASKED)
    assert made.verdict() == "plain"


class TestChapters:
    """Headings of a Markdown document are its own up to the last chapter, and a template's are not."""

    TEXT = Path("examples/handbook.md").read_text("utf-8")

    @pytest.mark.long
    @pytest.mark.parametrize("name", LAYOUTS)
    def test_no_chapter_is_left_to_both_models(self, name):
        made = fill(name, LAYOUTS[name], self.TEXT, ASKED)
        found = segment(made.text)
        assert made.verdict_on(found) == "right"
        assert sum(end - start for start, end in found.context_spans) >= 0.97 * len(self.TEXT)

    @pytest.mark.parametrize(
        "ending",
        [
            "## Instructions\nKeep it short.\n\n## Question\n{question}",
            "## Your task\n\nAnswer in one sentence.\n\n## Question\n{question}\n\n## Answer\n",
            "## Output format\n- one sentence\n- cite the chapter\n\n## User question\n{question}",
            "Request\n=======\n{question}\n",
        ],
    )
    def test_a_templates_headings_stay_outside(self, ending):
        made = fill("", "## Context\n{context}\n\n" + ending, self.TEXT, ASKED)
        assert made.verdict() == "right"

    def test_a_request_on_the_last_line_stays_outside(self):
        layout = 'A colleague wrote: "{question}". Our policy says: "{context}". How should we reply to the colleague?'
        for text in (self.TEXT, document("prose", 11), document("German", 11)):
            assert fill("", layout, text.strip(), ASKED).verdict() == "right"
