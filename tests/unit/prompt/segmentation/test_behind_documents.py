"""What stands beside a question is not the question: instructions behind it, the document's own lines and marks."""

from pathlib import Path

import pytest

from rapid_integrations.prompt.segmentation import segment
from tests.unit.prompt.segmentation.documents import KINDS, document
from tests.unit.prompt.segmentation.generator import fill

pytestmark = pytest.mark.long

ASKED = "Who sold the mill to Haas?"
SOME_KINDS = ("prose", "markdown", "code", "table", "dialogue", "prose with questions", "German", "Chinese")
HEADINGS = ("### {}\n", "## {}\n", "**{}:** ", "{}: ", "[{}]\n")
MANNERS = (
    "Max 50 words.",
    "German",
    "No preamble.",
    "Plain text only, no Markdown.",
    "The last line of your reply must be of the form Answer: $ANSWER",
)


def wrong_among(layouts, question=ASKED, kinds=SOME_KINDS):
    """Return the verdicts that are not "right" over layouts and kinds of documents."""
    cases = [(layout, kind, fill("", layout, document(kind, 5), question)) for layout in layouts for kind in kinds]
    return [(layout, kind, made.verdict()) for layout, kind, made in cases if made.verdict() != "right"]


class TestTasks:
    """A "Task:" behind a labelled question says how to answer it."""

    @pytest.mark.parametrize("name", ["Instructions", "Task", "Aufgabe"])
    @pytest.mark.parametrize("manner", MANNERS)
    def test_a_labelled_question_is_the_question(self, name, manner):
        order = (("Context", "{context}"), ("Question", "{question}"), (name, manner))
        layouts = ["\n\n".join(form.format(label) + said for label, said in order) for form in HEADINGS]
        assert not wrong_among(layouts)
        order = (order[1], order[0], order[2])
        layouts = ["\n\n".join(form.format(label) + said for label, said in order) for form in HEADINGS]
        assert not wrong_among(layouts, kinds=("prose", "table"))

    @pytest.mark.parametrize("form", HEADINGS)
    def test_a_task_that_nothing_else_asks_is_the_question(self, form):
        layouts = [form.format("Context") + "{context}\n\n" + form.format("Task") + "{question}"]
        assert not wrong_among(layouts, kinds=KINDS)
        assert not wrong_among(layouts, "Name the owners of the orchard and of the mill.", kinds=KINDS)

    @pytest.mark.parametrize("form", HEADINGS)
    def test_a_question_without_a_label_is_never_lost_to_a_task(self, form):
        for question in (ASKED, "Name the owners of the orchard."):
            for at in ("{{question}}\n\n{}{{context}}\n\n{}", "{}{{context}}\n\n{{question}}\n\n{}"):
                layout = at.format(form.format("Context"), form.format("Instructions") + "Max 50 words.")
                assert {verdict for *_, verdict in wrong_among([layout], question)} <= {"plain"}


LABELLED = (
    "Context:\n{context}\n\nQuestion: {question}\n\n",
    "### Context\n{context}\n\n### Question\n{question}\n\n### Instructions\n",
    "You are helpful. Use the passages.\n\nPassages:\n{context}\n\nUser question: {question}\n",
    "Use the context to answer.\n\n<context>\n{context}\n</context>\n\nQuestion: {question}\n\n",
)


@pytest.mark.parametrize(
    "told",
    [
        'Your response should end with "Final Answer: X".',
        "Start with Answer: and end with Sources: [1], [2].",
        "Answer in the form 'Answer: ...'.",
        'Begin your reply with "Answer:".',
        "Write your solution, then the line Answer: N on its own.",
        "Put the label **Answer:** before your answer.",
        'Reply in JSON, like {"answer": "42"}.',
        "Your final line should be exactly: Answer: yes or Answer: no",
        "Think step by step, then give the final answer in the form 'Final answer: ...'. Answer in English.",
        "Terminez par « Réponse finale : X ».",
        'Beende die Antwort mit "Endgültige Antwort: X".',
        "最后一行必须是“答案：X”。",
    ],
)
def test_a_label_that_an_instruction_speaks_of_is_none(told):
    assert not wrong_among([layout + told for layout in LABELLED])


TITLES = (  # of documents: a question, or what looks like a label and a question
    "What is data science?\n",
    "Chikungunya: A Potentially Emerging Epidemic?\n\nAuthors: Duval, Haas\nDate: 2010-04-27\n\n",
    "\tIntroduction\n\nThis report is about grants.\n\n\t\tHow are grants requested?\n\n",
    "Annual report\n\nBy Haas and Duval\n\nIs the mill worth it?\n\n",
)
REQUESTS = (
    "Summarize the main points.",
    "Please help me summarize this report.",
    "List all persons that are named and what they want.",
    "Write a short abstract of the text above.",
)
BOUNDED = (
    '<documents>\n<document index="1">\n<source>report.pdf</source>\n<document_content>\n{context}\n</document_content>\n'
    "</document>\n</documents>\n\n{question}",
    "Use the following context as your learned knowledge, inside <context></context> XML tags.\n\n<context>\n{context}\n"
    "</context>\n\nWhen answer to user:\n- If you don't know, just say that you don't know.\n\n{question}",
    "Here's the document:\n```\n{context}\n```\n{question}",
    "{context}\n\n{question}",
    "{question}\n\n{context}",
    "Below is the transcript of a meeting.\n\n{context}\n\nBased on the transcript above, {question}",
    "[INST] Context information is below.\n{context}\n\nAnswer: {question} [/INST]",
    "Documents:\nDocument 1: {context}\n\nUsing only the documents above, {question}",
)


class TestLinesOfTheDocument:
    """A line of the document that asks is not what the prompt asks."""

    @staticmethod
    def query(layout, text, question):
        found = segment(fill("", layout, text, question).text)
        return found.query if found.context_spans else question

    @pytest.mark.parametrize("layout", BOUNDED)
    @pytest.mark.parametrize("title", TITLES)
    def test_a_title_is_not_the_question(self, title, layout):
        for kind in ("prose", "German", "prose with questions"):
            for question in REQUESTS:
                assert question in self.query(layout, title + document(kind, 5, 9000), question)

    @pytest.mark.parametrize("layout", BOUNDED)
    @pytest.mark.parametrize("ending", ["\n\nCan grants be combined?\n\n{}", "\n\nCan you confirm?\n\nThanks,\nAlice"])
    def test_a_last_heading_is_not_the_question(self, layout, ending):
        paragraph = document("prose", 6, 300).split("\n\n")[0] * 2
        text = document("prose", 5, 9000).replace("\n\n", "\n\nCan you confirm?\n\n") + ending.format(paragraph)
        for question in REQUESTS:
            assert question in self.query(layout, text, question)

    @pytest.mark.parametrize("title", TITLES)
    def test_a_question_behind_is_found_or_plain(self, title):
        text = title + document("prose", 5, 9000)
        assert self.query("{context}\n\n{question}", text, ASKED) == ASKED

    def test_an_underlined_module_names_no_question(self):
        text = '"""\nrequests.models\n~~~~~~~~~~~~~~~\n\nThis module holds the objects.\n"""\n\n' + document("code", 5)
        for question in REQUESTS:
            assert question in self.query("{context}\n\n{question}", text, question)


class TestMarksOfTheDocument:
    """A mark deep within a document's lines does not begin the context, where a sentence announces it."""

    README = Path("README.md").read_text("utf-8").strip()
    CODE = (
        document("code", 5)
        + '\n\n    chain = {\n        "context": docs,\n    }\n    Source:\n\n'
        + document("code", 6)
    )
    ANNOUNCED = (
        "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
        "that you don't know, don't try to make up an answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:",
        "Use the provided article delimited by triple quotes to answer the question. If the answer cannot be found in the "
        'article, write "I could not find an answer."\n\n"""\n{context}\n"""\n\nQuestion: {question}',
        "Answer the question based on the given passages.\n\nThe following are given passages.\n{context}\n\nAnswer the "
        "question based on the given passages.\n\nQuestion: {question}\nAnswer:",
        "{context}\n\nQ: {question}\nA:",
    )

    @pytest.mark.parametrize("layout", ANNOUNCED)
    @pytest.mark.parametrize("text", [README, CODE], ids=["README", "code"])
    def test_the_document_begins_at_its_beginning(self, layout, text):
        assert fill("", layout, text, ASKED).verdict() == "right"


@pytest.mark.parametrize("label", ["Chat History", "Conversation so far", "Gesprächsverlauf"])
@pytest.mark.parametrize("kind", ["prose", "markdown", "German"])
def test_a_history_is_no_context(label, kind):
    layout = (
        "Given the following conversation and a follow up question, rephrase the follow up question to be a standalone "
        f"question.\n\n{label}:\nHuman: hi\nAssistant: {{context}}\nFollow Up Input: {{question}}\nStandalone question:"
    )
    assert fill("", layout, document(kind, 5, 9000), ASKED).verdict() == "plain"
