"""What the words beside a text want: a question about it, all of it, or neither."""

import time

import pytest

from rapid_integrations.prompt.tasks import question_in, says_nothing, wants_all_of_it


@pytest.mark.parametrize(
    "instruction",
    [
        "Translate to French.",
        "System: Translate the following from English into Italian\nHuman: ",
        "You are a translator. Please translate the text.",
        "Write a concise summary of the following:",
        "Summarize.",
        "You are an expert extraction algorithm. Only extract relevant information from the text.",
        "Extract persons.",
        "Your task is to classify the mail.",
        "Review this code.",
        "1. Proofread the text.",
        "Übersetze den Text ins Englische.",
        "Fasse den Text zusammen.",
        "Résume ce texte.",
        "请翻译以下文本。",
    ],
)
def test_what_needs_all_of_a_text(instruction):
    assert wants_all_of_it(instruction) and question_in(instruction) == ""


@pytest.mark.parametrize(
    "instruction",
    [
        "Who signs orders? Answer from the text.",
        "You are a helpful assistant.",
        "Use the following pieces of context to answer.",
        "Summaries:",
        "Answer the customer's mail politely.",
        "What are everyone's favorite colors:",
        "",
    ],
)
def test_what_does_not(instruction):
    assert not wants_all_of_it(instruction)


@pytest.mark.parametrize(
    ("instruction", "question"),
    [
        ("Who signs orders? Answer from the text.", "Who signs orders?"),
        ("You are a lawyer. What does it say about **rent**?", "What does it say about **rent**?"),
        ("Be brief.\nQuestion: notice period of contract B", "notice period of contract B"),
        ("¿Quién firma?", "¿Quién firma?"),
        ("谁签署订单？", "谁签署订单？"),
        ("You are a helpful assistant.", ""),
        ("Answer the mail.", ""),
        ('Classify the mail. Example: "Where is my order?" is "shipping".', ""),
        ("Can you summarize this?", ""),
        ("Is it polite? Is it short? Is it true? Is it kind?", ""),
    ],
)
def test_what_is_asked_about_a_text(instruction, question):
    assert question_in(instruction) == question


@pytest.mark.parametrize("text", ["", " \n", "Context:\n", "<text>\n", "</text>\n\nAnswer:", '"""', "---\n\nKontext："])
def test_what_only_names_a_context(text):
    assert says_nothing(text)


@pytest.mark.parametrize("text", ["?", "Who?", "Read this.", "Context:\nx"])
def test_what_says_something(text):
    assert not says_nothing(text)


def test_it_takes_no_time():
    started = time.process_time()
    for text in (" " * 390 + "x", "a: " * 120 + "x", "<a " * 120, "- " * 150 + "x"):
        assert not says_nothing(text)
        wants_all_of_it(text)
    assert time.process_time() - started < 1
