"""Texts that fill a message: they are searched only if a question is asked about them, and never raise an error."""

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda

from tests.toys.both_texts import both
from tests.toys.langchain_llms import DOCUMENT, QUESTION
from tests.toys.models import words

OTHER = words(9, 120)
TRANSLATE = ChatPromptTemplate([("system", "Translate to {language}"), ("human", "{text}")])


def text_of(number):
    return words(1000 + number, 120)


def is_plain(prepared):
    return prepared.target.segmentation == "plain" and prepared.drafter.text == prepared.target.text


class TestInstructionsElsewhere:
    @pytest.mark.parametrize("name", ["text", "msg", "email", "code", "context", "input", "document"])
    @pytest.mark.parametrize(
        "told",
        [
            "You are an expert extraction algorithm. Only extract relevant information from the text.",
            "Write a concise summary of the text.",
            "Summarize.",
            "You are a support agent. Answer the customer's mail politely.",
            "Review this code.",
            "You are a helpful assistant.",
        ],
    )
    def test_what_cannot_be_searched_for(self, either, seen, name, told):
        prompt = ChatPromptTemplate([("system", told), ("human", f"{{{name}}}")])
        (prompt | either).invoke({name: DOCUMENT})
        assert is_plain(seen[0])

    @pytest.mark.parametrize("name", ["text", "context"])
    @pytest.mark.parametrize("human", ["{%s}", "Text:\n{%s}", "<text>\n{%s}\n</text>"])
    def test_a_question(self, chat, seen, name, human):
        told = "Who signs orders? Answer from the text."
        (ChatPromptTemplate([("system", told), ("human", human % name)]) | chat).invoke({name: DOCUMENT})
        assert both(seen[0]) == ((DOCUMENT,), "Who signs orders?")

    @pytest.mark.parametrize("name", ["text", "context"])
    def test_a_question_of_a_chat_as_one_text(self, llm, seen, name):
        told = "Who signs orders? Answer from the text."
        (ChatPromptTemplate([("system", told), ("human", f"{{{name}}}")]) | llm).invoke({name: DOCUMENT})
        assert both(seen[0]) == ((DOCUMENT,), "Who signs orders?")

    def test_documents_stuffed_into_the_message(self, chat, seen):
        from langchain_classic.chains.combine_documents import create_stuff_documents_chain

        chain = create_stuff_documents_chain(
            chat, ChatPromptTemplate([("system", "Summarize."), ("human", "{context}")])
        )
        chain.invoke({"context": [Document(page_content=DOCUMENT)]})
        assert is_plain(seen[0])

    @pytest.mark.parametrize("told", ["Summarize.", "You are helpful."])
    @pytest.mark.parametrize("way", ["call", "message", "whole message"])
    def test_a_context_that_is_given(self, chat, seen, told, way):
        kwargs = {"message": {"rapid_context": DOCUMENT}, "whole message": {"rapid_context": True}}.get(way, {})
        messages = [SystemMessage(told), HumanMessage(DOCUMENT, additional_kwargs=kwargs)]
        chat.invoke(messages, **({"rapid_context": DOCUMENT} if way == "call" else {}))
        assert is_plain(seen[0])
        messages[0] = SystemMessage(QUESTION)
        chat.invoke(messages, **({"rapid_context": DOCUMENT} if way == "call" else {}))
        assert both(seen[1]) == ((DOCUMENT,), QUESTION)

    def test_asked_in_the_message_before_but_not_in_an_earlier_turn(self, chat, seen):
        document = HumanMessage(DOCUMENT, additional_kwargs={"rapid_context": True})
        chat.invoke([HumanMessage("notice period of B"), document])
        assert both(seen[0]) == ((DOCUMENT,), "notice period of B")
        chat.invoke([HumanMessage("Who was first?"), AIMessage("He was."), document])
        assert is_plain(seen[1])


class TestTasksOfTheWholeText:
    @pytest.mark.parametrize(
        ("template", "values"),
        [
            ("Translate the text to {language}:\n{text}", {"language": "French"}),
            ("Rewrite this in a {tone} tone.\n\n{article}", {"tone": "formal"}),
            ('Write a concise summary of the following:\n\n"{text}"\n\nCONCISE SUMMARY:', {}),
            ("Extract all dates from the context.\n{context}", {}),
        ],
    )
    def test_in_one_text(self, either, seen, template, values):
        prompt = PromptTemplate.from_template(template)
        name = next(name for name in prompt.input_variables if name not in values)
        (prompt | either).invoke({**values, name: DOCUMENT})
        assert is_plain(seen[0])

    def test_in_messages(self, either, seen):
        (TRANSLATE | either).invoke({"language": "French", "text": DOCUMENT})
        assert is_plain(seen[0])

    @pytest.mark.parametrize("question", ["Summarize what it says about rent.", QUESTION])
    def test_a_question_by_name_is_asked_about_what_was_retrieved(self, either, seen, question):
        prompt = ChatPromptTemplate([("system", "Summarize from this.\n{context}"), ("human", "{question}")])
        (prompt | either).invoke({"context": DOCUMENT, "question": question})
        assert both(seen[0]) == ((DOCUMENT,), question)

    def test_a_later_turn_asks_about_the_context_of_the_first(self, chat, seen):
        prompt = ChatPromptTemplate([("system", "Use this.\n{context}"), ("human", "{question}")])
        messages = prompt.invoke({"context": text_of(6), "question": QUESTION}).to_messages()
        chat.invoke([*messages, AIMessage("So."), HumanMessage("Summarize what it says of rent.")])
        assert both(seen[0]) == ((text_of(6),), "Summarize what it says of rent.")

    def test_how_to_answer_is_no_question(self, either, seen):
        prompt = PromptTemplate.from_template("Answer in {language}.\n{context}\nWhat is said of rent?")
        (prompt | either).invoke({"context": DOCUMENT, "language": "French"})
        assert both(seen[0]) == ((DOCUMENT,), "What is said of rent?")


class TestOtherCalls:
    """What one chain rendered says nothing about a call with other instructions."""

    def test_the_same_text_with_other_instructions(self, chat, seen):
        context = ChatPromptTemplate([("system", "What is said of rent?"), ("human", "{text}")])
        text = text_of(1)
        (context | chat).invoke({"text": text})
        assert both(seen[0]) == ((text,), "What is said of rent?")
        for messages in (
            [SystemMessage("Who signs orders? Answer from the text."), HumanMessage(text)],
            [HumanMessage(text)],
            [HumanMessage(text), AIMessage("So."), HumanMessage("More.")],
        ):
            chat.invoke(messages)
            assert is_plain(seen[-1])

    def test_the_same_messages(self, chat, seen):
        context = ChatPromptTemplate([("system", "What is said of rent?"), ("human", "{text}")])
        chat.invoke(context.invoke({"text": text_of(2)}))
        chat.invoke(context.invoke({"text": text_of(2)}).to_messages())
        chat.invoke([*context.invoke({"text": text_of(2)}).to_messages(), AIMessage("So."), HumanMessage("And light?")])
        assert [both(each) for each in seen[:2]] == [((text_of(2),), "What is said of rent?")] * 2
        assert both(seen[2]) == ((text_of(2),), "And light?")

    def test_a_text_that_holds_its_question(self, chat, seen):
        prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "{context}\nAsked: {question}")])
        human = prompt.invoke({"context": text_of(3), "question": QUESTION}).to_messages()[-1]
        chat.invoke([SystemMessage("Be polite."), human])
        assert both(seen[0]) == ((text_of(3),), QUESTION)

    @pytest.mark.parametrize("change", [lambda given: given[1:], lambda given: [SystemMessage("Be brief."), *given]])
    def test_a_chain_that_changes_its_own_messages(self, chat, seen, change):
        prompt = ChatPromptTemplate([("system", "Obey."), ("human", "{context}"), ("human", "{question}")])
        chain = prompt | RunnableLambda(lambda value: change(value.to_messages())) | chat
        chain.invoke({"context": text_of(4), "question": QUESTION})
        assert both(seen[0]) == ((text_of(4),), QUESTION)

    def test_two_renderings_of_one_text(self, chat, seen):
        ways = [ChatPromptTemplate([("system", told), ("human", "{text}")]) for told in ("Who won?", "Who lost?")]
        given = [way.invoke({"text": text_of(5)}) for way in ways]
        for each in given:
            chat.invoke(each)
        assert [prepared.target.query for prepared in seen] == ["Who won?", "Who lost?"]
