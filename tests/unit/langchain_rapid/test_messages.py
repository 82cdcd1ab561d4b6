"""Messages for a plain LLM are one text, and lose nothing on the way to it."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from langchain_rapid import RapidLLM, read_ahead
from langchain_rapid.errors import InvalidPromptError
from langchain_rapid.messages import TextOfMessages, with_texts
from tests.toys.langchain_llms import DOCUMENT, QUESTION, as_user, expect

LONG = " ".join(f"{DOCUMENT} Part {number} ends here." for number in range(4))
TEXT = {"type": "text", "text": "What colour is it?"}
IMAGES = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    {"type": "image", "url": "https://example.org/sky.png"},
    {"type": "file", "base64": "AAAA", "mime_type": "application/pdf"},
]
WAYS = {
    "invoke": lambda llm, messages: llm.invoke(messages),
    "stream": lambda llm, messages: list(llm.stream(messages)),
    "batch": lambda llm, messages: llm.batch([messages]),
    "a chain": lambda llm, messages: (ChatPromptTemplate.from_messages(messages) | llm).invoke({}),
    "generate_prompt": lambda llm, messages: llm.generate_prompt([ChatPromptTemplate(messages).invoke({})]),
}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image["type"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_text_is_refused_and_not_left_out(llm, image, way):
    with pytest.raises(InvalidPromptError, match=f"block of type '{image['type']}'"):
        WAYS[way](llm, [HumanMessage([image, TEXT])])
    assert isinstance(llm.invoke("fine"), str)


async def test_asynchronous_calls_refuse_it_too(llm):
    messages = [HumanMessage([IMAGES[0], TEXT])]
    with pytest.raises(InvalidPromptError):
        await llm.ainvoke(messages)
    with pytest.raises(InvalidPromptError):
        [piece async for piece in llm.astream(messages)]
    with pytest.raises(InvalidPromptError):
        await llm.agenerate_prompt([ChatPromptTemplate(messages).invoke({})])
    refused, answered = await llm.abatch([messages, "fine"], return_exceptions=True)
    assert isinstance(refused, InvalidPromptError) and isinstance(answered, str)


@pytest.mark.parametrize("kind", ["text", "text-plain", "input_text", None])
@pytest.mark.parametrize("way", WAYS)
def test_every_part_is_read_apart_from_the_next(llm, seen, kind, way):
    part = "The sky is green." if kind is None else {"type": kind, "text": "The sky is green."}
    WAYS[way](llm, [HumanMessage([part, TEXT])])
    assert seen[0].target.text == as_user("Human: The sky is green.\n\nWhat colour is it?")


def test_a_template_of_parts_is_recognised_and_read_ahead(engine, llm, seen):
    prompt = ChatPromptTemplate.from_messages(
        [("human", [{"type": "text", "text": "Text: {context}"}, {"type": "text", "text": "Question: {question}"}])]
    )
    read_ahead(llm, prompt, {"context": DOCUMENT})
    (prompt | llm).invoke({"context": DOCUMENT, "question": QUESTION})
    expect(seen[0], as_user(f"Human: Text: {DOCUMENT}\n\nQuestion: {QUESTION}"))
    answer = RapidLLM(engine=engine).generate_prompt([prompt.invoke({"context": DOCUMENT, "question": QUESTION})])
    counted = answer.generations[0][0].generation_info
    assert counted["rapid"]["cached_prompt_tokens"] > len(DOCUMENT) / 2


class TestTurns:
    """What a chat model finds in messages is found in them as one text."""

    def both(self, llm, chat, seen, messages):
        llm.invoke(messages)
        chat.invoke(messages)
        as_text, as_messages = (prepared.target for prepared in seen)
        assert (as_text.contexts, as_text.query, as_text.segmentation) == (
            as_messages.contexts,
            as_messages.query,
            as_messages.segmentation,
        )
        return as_text

    def test_a_history_is_no_context(self, llm, chat, seen):
        turns = [HumanMessage(LONG), AIMessage(LONG)]
        found = self.both(llm, chat, seen, [SystemMessage("Ask it anew."), *turns, HumanMessage(QUESTION)])
        assert found.contexts == () and found.query == QUESTION

    def test_a_history_of_a_template_is_no_context(self, llm, seen):
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Ask it anew."), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
        (prompt | llm).invoke({"chat_history": [HumanMessage(LONG), AIMessage(LONG)], "input": QUESTION})
        assert seen[0].target.contexts == () and seen[0].target.query == QUESTION

    @pytest.mark.parametrize(
        "said", ["## Words\n\n{0}\n\n{1}", "Context:\n{0}\n\nQuestion: {1}", "{1}\n\nUse this context:\n{0}"]
    )
    def test_a_document_in_the_last_turn(self, llm, chat, seen, said):
        found = self.both(llm, chat, seen, [SystemMessage("Be brief."), HumanMessage(said.format(LONG, QUESTION))])
        assert found.query == QUESTION and sum(map(len, found.contexts)) > len(LONG) / 2

    def test_a_document_in_the_system_message_behind_turns(self, llm, chat, seen):
        told = SystemMessage(f"Answer from the context below.\n\nContext:\n{LONG}")
        found = self.both(llm, chat, seen, [told, HumanMessage("Hello"), AIMessage("Hi"), HumanMessage(QUESTION)])
        assert found.query == QUESTION and found.contexts and found.contexts[0] in LONG

    def test_a_question_of_the_call_comes_first(self, llm, seen):
        llm.invoke([SystemMessage(f"Context:\n{LONG}"), HumanMessage(QUESTION)], rapid_query="And what else?")
        assert seen[0].target.query == "And what else?" and seen[0].target.contexts


def test_the_text_is_langchains_own():
    messages = [SystemMessage("a"), HumanMessage("b"), AIMessage("c"), HumanMessage("b")]
    prompt = ChatPromptTemplate.from_messages(messages).invoke({})
    text = with_texts(prompt).to_string()
    assert text == prompt.to_string() and isinstance(text, TextOfMessages)
    assert [text[start] for start in text.starts] == ["a", "b", "c", "b"]
