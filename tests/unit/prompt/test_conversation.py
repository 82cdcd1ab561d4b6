"""Contexts and questions of conversations: in which message they stand, and what is searched for."""

import pytest

from rapid_integrations import ConfigurationError, Prompt, PromptError
from rapid_integrations.prompt import join_parts, render
from tests.toys.chatml import chatml
from tests.unit.prompt.segmentation.documents import document
from tests.unit.prompt.segmentation.layouts import LAYOUTS

TEXT = document("prose", 1)
OTHER = document("prose", 2)
ASKED = "Who owned the mill?"


def rag(text, question=ASKED, layout="en hub rag-prompt"):
    return LAYOUTS[layout].replace("{context}", text).replace("{question}", question)


class TestWhere:
    def test_in_an_earlier_user_message_that_asks_nothing(self):
        messages = [
            {
                "role": "user",
                "content": f"Here is the report:\n\n<document>\n{TEXT}\n</document>\n\nI will ask about it.",
            },
            {"role": "assistant", "content": "Go ahead."},
            {"role": "user", "content": ASKED},
        ]
        rendered = render(messages, chatml)
        assert rendered.contexts == (TEXT,) and rendered.query == ASKED

    def test_in_each_turn(self):
        messages = [
            {"role": "user", "content": rag(TEXT, "Who built it?")},
            {"role": "assistant", "content": "Haas."},
            {"role": "user", "content": rag(OTHER)},
        ]
        rendered = render(messages, chatml)
        assert rendered.contexts == (TEXT, OTHER) and rendered.query == ASKED

    def test_a_follow_up_asks_about_an_earlier_context(self):
        messages = [
            {"role": "user", "content": rag(TEXT)},
            {"role": "assistant", "content": "Haas. " * 500},
            {"role": "user", "content": "And after him?"},
        ]
        rendered = render(messages, chatml)
        assert rendered.contexts == (TEXT,) and rendered.query == "And after him?"
        assert rendered.earlier_query == ASKED
        assert render(messages[:1], chatml).earlier_query == ""
        given = [*messages[:2], {"role": "user", "content": Prompt(text="And after him?", query="Who followed Haas?")}]
        assert render(given, chatml).earlier_query == ""

    def test_in_tools_results_and_not_in_what_the_model_said(self):
        messages = [
            {"role": "user", "content": ASKED},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "content": f"Source: a.pdf\nContent: {TEXT}"},
            {"role": "assistant", "content": f"Context:\n{OTHER}\n\nQuestion: what?"},
        ]
        rendered = render(messages, lambda given: chatml([{**m, "content": m["content"] or ""} for m in given]))
        assert rendered.contexts == (f"Source: a.pdf\nContent: {TEXT}",) and rendered.query == ASKED
        assert rendered.segmentation == "tool messages"

    def test_a_labelled_last_question_is_searched_for_without_its_label(self):
        system = f"Answer from the context.\n\nContext:\n{TEXT}"
        last = f"Question: {ASKED}\n\nAnswer in English."
        rendered = render([{"role": "system", "content": system}, {"role": "user", "content": last}], chatml)
        assert rendered.contexts == (TEXT,) and rendered.query == ASKED

    def test_a_system_message_alone_is_looked_at_like_any_text(self):
        rendered = render([{"role": "system", "content": rag(TEXT)}], chatml)
        assert rendered.contexts == (TEXT,) and rendered.query == ASKED

    def test_a_long_chat_without_a_document_is_plain(self):
        turns = [("user", f"Tell me about mill {n}. I like mills of that size a lot. " * 6) for n in range(20)]
        messages = [{"role": role, "content": said} for role, said in turns]
        rendered = render([*messages, {"role": "user", "content": ASKED}], chatml)
        assert rendered.segmentation == "plain" and rendered.query == ASKED


class TestContextsThatFillTheLastMessage:
    @staticmethod
    def asked(*before, text=TEXT):
        filled = Prompt(text=text, context_spans=((text.find(TEXT), text.find(TEXT) + len(TEXT)),))
        messages = [{"role": role, "content": content} for role, content in before]
        return render([*messages, {"role": "user", "content": filled}], chatml)

    @pytest.mark.parametrize("text", [TEXT, f"Context:\n{TEXT}", f"<text>\n{TEXT}\n</text>\n\nAnswer:"])
    def test_the_instructions_ask(self, text):
        rendered = self.asked(("system", f"{ASKED} Answer from the text."), text=text)
        assert rendered.contexts == (TEXT,) and rendered.query == ASKED and rendered.segmentation == "explicit"

    @pytest.mark.parametrize("told", ["Summarize.", "You are helpful.", "Translate to French."])
    def test_the_instructions_ask_nothing_that_can_be_searched_for(self, told):
        rendered = self.asked(("system", told))
        assert rendered.contexts == () and rendered.segmentation == "plain" and rendered.query

    def test_this_turn_asks_before_it(self):
        assert self.asked(("system", "Who?"), ("user", "the owner of the mill")).query == "the owner of the mill"
        assert self.asked(("user", "Translate this.")).contexts == ()
        assert self.asked(("user", ASKED), ("assistant", "He.")).contexts == ()

    def test_nothing_asks_at_all(self):
        with pytest.raises(PromptError, match="the prompt is all context"):
            self.asked()

    def test_a_cue_for_the_answer_is_not_the_question(self):
        text = f"{ASKED}\n\n{TEXT}\n\nAnswer:"
        prompt = Prompt(text=text, context_spans=((len(ASKED) + 2, len(ASKED) + 2 + len(TEXT)),))
        assert render(prompt, chatml).query == ASKED


class TestParts:
    def test_parts_are_not_glued(self):
        assert join_parts(["The mill", " ", "burnt down."]) == "The mill\nburnt down."

    def test_spans_move_with_their_part(self):
        joined = join_parts(["Read this.", Prompt.retrieved(TEXT, [(0, len(TEXT))]), Prompt(text=ASKED, query=ASKED)])
        assert [joined.text[a:b] for a, b in joined.context_spans] == [TEXT] and joined.query == ASKED
        assert joined.text == f"Read this.\n{TEXT}\n{ASKED}"

    def test_a_message_of_several_parts(self):
        content = [
            {"type": "text", "text": "Answer from the document."},
            {"type": "text", "text": f"<document>\n{TEXT}\n</document>"},
            {"type": "text", "text": ASKED},
        ]
        rendered = render([{"role": "user", "content": content}], chatml)
        assert rendered.contexts == (TEXT,) and rendered.query == ASKED

    def test_a_part_that_is_no_text(self):
        with pytest.raises(PromptError, match="a part of a message is not text"):
            render([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], chatml)


class TestNothingRetrieved:
    PROMPT = f"Context:\n\n\nQuestion: {ASKED}\n\n{OTHER}"

    def test_said_by_the_caller(self):
        rendered = render(Prompt.without_context(rag(TEXT)), chatml)
        assert rendered.context_spans == () and rendered.segmentation == "plain"

    @pytest.mark.parametrize("spans", [(), [(9, 9)], [(9, 10)], [(9, 9), (10, 10)]])
    def test_spans_of_a_host_that_hold_nothing(self, spans):
        prompt = Prompt.retrieved(self.PROMPT, spans, " ")
        assert not prompt.has_context and prompt.context_spans == () and prompt.query is None
        assert render(prompt, chatml).context_spans == ()

    def test_empty_spans_beside_others(self):
        prompt = Prompt.retrieved(f"{TEXT} {OTHER}", [(0, len(TEXT)), (len(TEXT), len(TEXT) + 1)], ASKED)
        assert render(prompt, chatml).contexts == (TEXT,)

    def test_in_a_message_of_a_conversation(self):
        messages = [
            {"role": "system", "content": Prompt.without_context(f"Context:\n{TEXT}")},
            {"role": "user", "content": ASKED},
        ]
        rendered = render(messages, chatml)
        assert rendered.context_spans == () and rendered.query == ASKED

    def test_blank_spans_of_a_prompt_are_no_context(self):
        rendered = render(Prompt(text=f"   {ASKED}", context_spans=((0, 3),)), chatml)
        assert rendered.context_spans == () and rendered.segmentation == "plain"

    def test_both_at_once_is_refused(self):
        with pytest.raises(ConfigurationError, match="has_context=False with context spans"):
            Prompt(text=TEXT, context_spans=((0, 9),), has_context=False)
