"""A prompt that is written as somebody's turn: "Human: ... Assistant:"."""

import time

import pytest

from rapid_integrations.prompt.segmentation import segment
from rapid_integrations.prompt.segmentation.turns import last_turn, moved, opens
from tests.unit.prompt.segmentation.documents import KINDS, document
from tests.unit.prompt.segmentation.generator import fill

ASKED = "Who sold the mill to Haas?"
REQUEST = "Find the day on which the mill was sold to Haas."
TOLD = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the "
    "question. If you don't know the answer, just say that you don't know."
)
TURNS = {
    "Vicuna": TOLD + "\n\nUSER: {}\nASSISTANT:",
    "headings": TOLD + "\n\n### Human: {}\n### Assistant:",
    "Claude": "\n\nHuman: " + TOLD + "\n\n{}\n\nAssistant:",
    "LangChain": f"System: {TOLD}\nHuman: {{}}",
    "LangChain, answered": "System: You are helpful.\nHuman: Hello.\nAI: Hello. How can I help?\nHuman: {}\nAI:",
    "LlamaIndex": f"system: {TOLD}\nuser: {{}}\nassistant: ",
    "bare": "User: {}\nAssistant:",
}
SOME_KINDS = ("prose", "markdown", "table", "German")
SAID = {
    "behind": "{context}\n\n{question}",
    "right behind": "{context}\n{question}",
    "before": "{question}\n\n{context}",
    "labels": "Context: {context}\n\nQuestion: {question}",
    "labels, asked first": "Question: {question}\nContext: {context}\nAnswer:",
    "a label": "Context:\n{context}\n\n{question}",
    "announced": "Based on the following information:\n{context}\n\nAnswer this: {question}",
    "tags": "<context>\n{context}\n</context>\n{question}",
}


@pytest.mark.long
@pytest.mark.parametrize("turn", TURNS)
def test_the_first_line_of_a_document_is_not_asked(turn):
    verdicts = {
        (said, kind, question[:4]): fill("", TURNS[turn].format(layout), document(kind, 5), question).verdict()
        for said, layout in SAID.items()
        for kind in (KINDS if said.endswith("behind") else SOME_KINDS)
        for question in (ASKED, REQUEST)
    }
    wrong = {case: verdict for case, verdict in verdicts.items() if verdict not in ("right", "plain")}
    assert not wrong
    asked = [
        verdict for (said, _, question), verdict in verdicts.items() if question == "Who " and said != "right behind"
    ]
    assert asked.count("right") >= 0.85 * len(asked)


@pytest.mark.parametrize("turn", TURNS)
def test_a_question_behind_a_document_is_found(turn):
    text = document("markdown", 5)
    prompt = TURNS[turn].format(f"{text}\n\n{ASKED}")
    found = segment(prompt)
    assert found.query == ASKED
    (start, end), at = found.context_spans[0], prompt.index(text)
    assert at <= start < end <= at + len(text) and end - start > 0.8 * len(text)


def test_the_turn_is_what_stands_between_its_labels():
    said = document("prose", 5)
    text = f"Be brief.\n\nUSER: {said}\nASSISTANT:"
    assert text[slice(*last_turn(text, 0))].strip() == said
    assert last_turn(f"{said}\n\nUser: {ASKED}\nAssistant:", 0) is None  # the document stands outside of it
    assert last_turn(said, 0) is None
    assert last_turn(f"Human: Hi.\nAI: {said}\nHuman: {ASKED}", 0) is None  # a history


def test_what_opens_a_turn():
    text = f"User: # Report\n\n{document('prose', 5)}"
    turn = last_turn(text, 0)
    assert opens(text, turn, "# Report") and opens(text, turn, "Report")
    assert not opens(text, turn, ASKED)
    text = f"User: {REQUEST}\n\n{document('prose', 5)}"
    assert not opens(text, last_turn(text, 0), REQUEST)  # it bids something
    assert moved(segment("short"), (7, 12)).context_spans == ()


def test_turns_within_turns_are_read_in_linear_time():
    took = []
    for size in (100_000, 400_000):
        text = "Human: " + "They met. " * 300
        text = text * (size // len(text))
        began = time.process_time()
        segment(text)
        took.append(time.process_time() - began)
    assert took[1] < 12 * took[0] + 0.5
