import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations import ConfigurationError, Prompt, PromptError
from rapid_integrations.prompt import render
from rapid_integrations.prompt.segmentation import segment
from tests.toys.chatml import chatml
from tests.toys.found_context import assert_nearly_all

DOCUMENT = "\n\n".join(
    f"Paragraph {i} is about topic {i} and says a good deal about it, as one does." for i in range(60)
)


def llama_like(messages):
    return "".join(f"<{m['role']}>\n\n{m['content'].strip()}<eot>" for m in messages) + "<assistant>\n\n"


# --- Prompt ---------------------------------------------------------------------------------------------------------


def test_from_context_marks_each_document():
    prompt = Prompt.from_context(["first text", "second text"], "What?")
    assert [prompt.text[a:b] for a, b in prompt.context_spans] == ["first text", "second text"]
    assert prompt.query == "What?" and prompt.text.index("second text") < prompt.text.index("What?")


def test_braces_in_a_document_are_only_text():
    prompt = Prompt.from_context("a {query} and {context} in a document", "What {x}?")
    ((start, end),) = prompt.context_spans
    assert prompt.text[start:end] == "a {query} and {context} in a document"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Prompt.from_context("", "What?"), "the document is empty"),
        (lambda: Prompt.from_context(["text", " \n"], "What?"), "document 2 of 2 is empty"),
        (lambda: Prompt.from_context([], "What?"), "no document"),
        (lambda: Prompt.from_context("text", "  "), "the question is empty"),
        (lambda: Prompt.from_context("text", "What?", "no places"), "must hold {context} once"),
        (lambda: render("", chatml), "the prompt is empty"),
        (lambda: render([{"role": "user", "content": " "}], chatml), "every message is blank"),
        (lambda: render([{"role": "user"}], chatml), "needs a 'role' and a 'content'"),
        (lambda: render([{"role": "user", "content": "x"}], None), "has no chat template"),
        (lambda: render(Prompt(text="only context", context_spans=((0, 12),)), chatml), "the question is empty"),
    ],
)
def test_what_cannot_be_answered_is_refused(call, said):
    with pytest.raises(PromptError, match=said.replace("(", r"\(").replace("{", r"\{").replace("}", r"\}")):
        call()


@pytest.mark.parametrize("spans", [((0, 99),), ((3, 2),), ((2, 2),), ((0, 4), (3, 6)), ((-1, 2),)])
def test_spans_must_lie_in_the_text(spans):
    with pytest.raises(ConfigurationError, match="context span"):
        Prompt(text="some text", context_spans=spans)


def test_misspelt_fields_are_refused():
    with pytest.raises(ConfigurationError, match="no option 'contxt_spans'"):
        Prompt(text="x", contxt_spans=())


# --- rendering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [chatml, llama_like])
@pytest.mark.parametrize("question", ["user", "What is topic 3?", "system\nassistant"])
def test_spans_are_found_in_the_rendered_text(template, question):
    prompt = Prompt.from_context(DOCUMENT, question)
    messages = [{"role": "system", "content": "user assistant system"}, {"role": "user", "content": prompt}]
    rendered = render(messages, template)
    assert rendered.text == template([messages[0], {"role": "user", "content": prompt.text}])
    assert rendered.contexts == (DOCUMENT,) and rendered.query == question and rendered.segmentation == "explicit"
    assert all(not rendered.text[a:b].startswith("<") for a, b in rendered.data_spans)


def test_a_template_that_strips_contents_moves_the_spans():
    text = "  \n" + DOCUMENT + "\n\nWhat?  "
    rendered = render(Prompt(text=text, context_spans=((3, 3 + len(DOCUMENT)),), query="What?"), llama_like)
    assert rendered.contexts == (DOCUMENT,)


def test_a_template_that_drops_a_message_does_not_lose_the_others():
    def forgetful(messages):
        return chatml(messages[-1:])

    messages = [{"role": "user", "content": "hello"}, {"role": "user", "content": Prompt.from_context(DOCUMENT, "W?")}]
    assert render(messages, forgetful).contexts == (DOCUMENT,)


@given(st.lists(st.text(min_size=0, max_size=12), min_size=2, max_size=2))
def test_splice_replaces_spans_and_nothing_else(replacements):
    prompt = Prompt.from_context(["first text", "second text"], "What?")
    rendered = render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}], chatml)
    spliced = rendered.splice(replacements)
    before, rest = rendered.text.split("first text")
    between, after = rest.split("second text")
    assert spliced.text == before + replacements[0] + between + replacements[1] + after
    assert spliced.contexts == tuple(replacements)
    outside = [spliced.text[a:b] for a, b in spliced.data_spans]
    assert outside[0] == "Be brief." and outside[-1].endswith("What?\nAnswer:")


def test_a_string_without_template_is_given_as_it_is():
    rendered = render("<|im_start|>user\nhello", None)
    assert rendered.text == "<|im_start|>user\nhello" and not rendered.templated and rendered.data_spans == ()


def test_the_last_human_turn_asks_about_an_earlier_document():
    messages = [
        {"role": "user", "content": f"Context:\n{DOCUMENT}\n\nQuestion: What is topic 1?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "And topic 2?"},
    ]
    rendered = render(messages, chatml)
    assert rendered.query == "And topic 2?" and rendered.contexts == (DOCUMENT,)


def test_contexts_given_in_several_messages_all_count():
    found = [
        Prompt(text=text, context_spans=((0, len(text)),), segmentation="tool message") for text in ("One.", "Two.")
    ]
    messages = [
        {"role": "user", "content": "Which is it?"},
        {"role": "tool", "content": found[0]},
        {"role": "tool", "content": found[1]},
    ]
    rendered = render(messages, chatml)
    assert rendered.contexts == ("One.", "Two.")
    assert rendered.query == "Which is it?" and rendered.segmentation == "tool message"


def test_a_question_given_with_the_prompt_wins_over_the_last_turn():
    prompt = Prompt(text=f"{DOCUMENT}\n\nAnswer me.", context_spans=((0, len(DOCUMENT)),), query="What is topic 3?")
    assert (
        render([{"role": "user", "content": prompt}, {"role": "user", "content": "Well?"}], chatml).query
        == prompt.query
    )


# --- segmentation ---------------------------------------------------------------------------------------------------

LLAMA_INDEX = (
    "Context information is below.\n---------------------\n{context}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {query}\nAnswer: "
)
LANGCHAIN = "Answer with the following context:\n\nContext: {context}\n\nQuestion: {query}\n\nHelpful Answer:"
TAGS = "Use the context.\n<context>\n{context}\n</context>\n\n{query}"


@pytest.mark.parametrize("template", [LLAMA_INDEX, LANGCHAIN, TAGS])
def test_known_delimiters(template):
    found = segment(template.format(context=DOCUMENT, query="What is topic 7?"))
    text = template.format(context=DOCUMENT, query="What is topic 7?")
    assert found.method == "delimiters" and found.query == "What is topic 7?"
    ((start, end),) = found.context_spans
    assert text[start:end] == DOCUMENT


@pytest.mark.parametrize(
    "template",
    [
        "{context}\n\n{query}",
        "{query}\n\n{context}" + " and so on without a break" * 60,
        "Read this report:\n\n{context}\n\n{query}",
    ],
)
def test_heuristic(template):
    text = template.format(context=DOCUMENT, query="What is topic 7?")
    document = DOCUMENT + text.partition(DOCUMENT)[2].partition("\n\n")[0]
    found = segment(text)
    assert found.method == "heuristic"
    assert_nearly_all(text, found, document, "What is topic 7?")


@pytest.mark.parametrize("text", ["What is the capital of France?", "x" * 5000, "Context: short\n\nQuestion: why?"])
def test_plain(text):
    found = segment(text)
    assert found.method == "plain" and found.context_spans == () and text.endswith(found.query)


@given(st.text(max_size=400))
def test_any_text_is_segmented_within_its_bounds(piece):
    text = (piece + "\n") * 30
    for start, end in segment(text).context_spans:
        assert 0 <= start < end <= len(text)
