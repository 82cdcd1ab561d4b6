"""Long prompts without a document are "plain": instructions, examples, tools, conversations, a text that is to be rewritten."""

import pytest

from rapid_integrations.prompt import render
from rapid_integrations.prompt.segmentation import segment, segment_context
from tests.toys.chatml import chatml
from tests.unit.prompt.segmentation.documents import document
from tests.unit.prompt.segmentation.instructions import RULES, SYSTEM_PROMPTS, TOOLS, USER_PROMPTS

ASKED = "Which mill burnt down?"


@pytest.mark.parametrize("name", USER_PROMPTS)
def test_no_instruction_is_taken_for_a_document(name):
    assert len(USER_PROMPTS[name]) > 2000
    found = segment(USER_PROMPTS[name])
    assert found.method == "plain" and found.context_spans == ()


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("name", SYSTEM_PROMPTS)
def test_a_system_message_is_no_document(name, windows):
    text = SYSTEM_PROMPTS[name].replace("\n", "\r\n") if windows else SYSTEM_PROMPTS[name]
    assert segment_context(text).context_spans == ()
    rendered = render([{"role": "system", "content": text}, {"role": "user", "content": ASKED}], chatml)
    assert rendered.segmentation == "plain" and rendered.context_spans == () and rendered.query == ASKED


@pytest.mark.parametrize(
    "system",
    [
        "You are an assistant. Use the following pieces of retrieved context to answer the question. If you don't know the answer, "
        "say that you don't know.\n\n{context}",
        "Answer from the context.\n\nContext:\n{context}",
        "Answer from the context.\n<context>\n{context}\n</context>\nNever mention the context.",
        "你是一个专业的助手。\n\n【上下文信息】\n{context}\n\n【回答要求】\n1. 不要编造信息。\n2. 回答要简洁。",
        "Tu es l'assistant. Réponds en te basant uniquement sur ce contexte.\nContexte : {context}",
        "Use the following portion of a long document to see if any of the text is relevant to answer the question.\nReturn any "
        "relevant text verbatim.\n______________________\n{context}",
        "Use the context information below to assist the user.\n--------------------\n{context}\n--------------------\n",
        "\n  The following is a friendly conversation between a user and an AI assistant.\n  The assistant is talkative.\n\n  Here are "
        "the relevant documents for the context:\n\n  {context}\n\n  Instruction: Based on the above documents, provide a detailed "
        'answer for the user question below.\n  Answer "don\'t know" if not present in the document.\n  ',
        "# Role\nYou answer.\n\n# Documents\n{context}\n\n# Rules\n" + RULES,
    ],
)
@pytest.mark.parametrize("kind", ["prose", "sources", "German", "table"])
def test_a_system_message_with_a_marked_context(system, kind):
    text = document(kind, 6)
    content = system.replace("{context}", text)
    rendered = render([{"role": "system", "content": content}, {"role": "user", "content": ASKED}], chatml)
    (context,) = rendered.contexts
    assert context in text and len(context) > 0.9 * len(text)
    assert rendered.query == ASKED and rendered.segmentation in ("delimiters", "heuristic")


def test_rules_and_tools_around_a_context_stay_with_both_readers():
    text = document("prose", 7)
    prompt = f"{RULES}\n\nTools:\n{TOOLS}\n\nContext:\n{text}\n\nQuestion: {ASKED}"
    found = segment(prompt)
    ((start, end),) = found.context_spans
    assert prompt[start:end] in text and end - start > 0.8 * len(text) and found.query == ASKED


MILLS = "The mill of place {} was built in 1840 by two brothers, and burnt down in 1911. " * 10
TAGS = "<context>\n{}\n</context>\n\nQuestion: {}\nAnswer:"
FENCES = "---------------------\n{}\n---------------------\nQuery: {}\nAnswer:"


@pytest.mark.parametrize("example", [TAGS, FENCES])
@pytest.mark.parametrize("shown", [3, 6])
def test_examples_with_contexts_of_their_own_are_no_context(example, shown):
    answered = [
        example.format(MILLS.format(*[n] * 10), f"Who built mill {n}?") + " Two brothers." for n in range(shown)
    ]
    prompt = "\n\n".join(["Answer from the context below.", *answered, example.format(document("prose", 8), ASKED)])
    assert segment(prompt).method == "plain"
