"""Which of a template's variables is context and which the question, beside histories, partial variables and the rest.

Each test holds both models' texts: the drafter's is the target's with exactly the context replaced.
"""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    FewShotPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)

from langchain_rapid import ChatRapid, RapidLLM
from langchain_rapid.template_capture import TEMPLATES
from langchain_rapid.template_variables import is_context, roles_of
from rapid_integrations import PromptError
from tests.toys.both_texts import both
from tests.toys.langchain_llms import DOCUMENT, QUESTION, as_user, expect
from tests.toys.models import words

OTHER = words(9, 120)
LONG = words(4, 500)  # longer than both documents
HISTORY = [HumanMessage("What was first? " + LONG), AIMessage("That was " + LONG)]
DOCUMENTS = [Document(page_content=DOCUMENT), Document(page_content=OTHER)]


class TestHistories:
    def test_a_placeholder(self, chat, seen):
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Use this.\n{context}"), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
        (prompt | chat).invoke({"context": DOCUMENT, "chat_history": HISTORY, "input": QUESTION})
        asked, answered = (message.content for message in HISTORY)
        target = (
            f"<|im_start|>system\nUse this.\n{DOCUMENT}<|im_end|>\n<|im_start|>user\n{asked}<|im_end|>\n"
            f"<|im_start|>assistant\n{answered}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        expect(seen[0], target)

    @pytest.mark.in_turn(2)
    @pytest.mark.parametrize("context", ["handbook", "context"])
    @pytest.mark.parametrize("history", ["chat_history", "history", "conversation", "messages", "agent_scratchpad"])
    def test_a_text(self, either, seen, context, history):
        template = PromptTemplate.from_template(f"So far: {{{history}}}\nRead: {{{context}}}\nAsked: {{question}}")
        (template | either).invoke({history: LONG, context: DOCUMENT, "question": QUESTION})
        expect(seen[0], as_user(f"So far: {LONG}\nRead: {DOCUMENT}\nAsked: {QUESTION}"))

    def test_a_history_alone_is_no_context(self):
        values = {"chat_history": LONG, "question": QUESTION}
        assert roles_of(values, LONG + QUESTION) is None

    @pytest.mark.parametrize("pairs", [[("human", LONG), ("ai", LONG)], [{"role": "user", "content": LONG}], HISTORY])
    def test_by_kind(self, pairs):
        assert roles_of({"so_far": pairs, "question": QUESTION}, f"{LONG} {QUESTION}") is None
        roles = roles_of({"so_far": pairs, "paper": DOCUMENT, "question": QUESTION}, f"{DOCUMENT} {LONG} {QUESTION}")
        assert roles.contexts == (DOCUMENT,) and roles.query == QUESTION

    def test_an_answer_to_go_on_with(self, either, seen):
        """The refine chain of LangChain: neither the answer so far nor the question is the new context."""
        template = PromptTemplate.from_template(
            "{question}\nSo far: {existing_answer}\n---\n{context_str}\n---\nRefine."
        )
        (template | either).invoke({"question": QUESTION, "existing_answer": LONG, "context_str": DOCUMENT})
        expect(seen[0], as_user(f"{QUESTION}\nSo far: {LONG}\n---\n{DOCUMENT}\n---\nRefine."))


class TestNames:
    @pytest.mark.parametrize(
        "name", ["context", "docs", "summaries", "retrieved_docs", "contextStr", "passages", "source_documents"]
    )
    def test_contexts(self, name):
        assert is_context(name, "short") and is_context(name, [])

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("chat_history", "x"),
            ("question", "x"),
            ("document_title", "x"),
            ("context_length", 3),
            ("existing_answer", "x"),
            ("format_instructions", "x"),
            ("text", "x"),
        ],
    )
    def test_others(self, name, value):
        assert not is_context(name, value)

    def test_documents_by_kind(self):
        assert is_context("whatever", DOCUMENTS) and is_context("whatever", DOCUMENTS[0])

    def test_a_long_question_is_no_context(self):
        """A document pasted into the question is for the segmenter, which looks for the question in it."""
        assert roles_of({"input": LONG}, f"Be brief. {LONG}") is None

    def test_long_instructions_are_no_context(self):
        values = {"format_instructions": LONG, "report": DOCUMENT, "question": QUESTION}
        assert roles_of(values, f"{LONG} {DOCUMENT} {QUESTION}").contexts == (DOCUMENT,)


class TestSeveralContexts:
    def test_by_name(self, either, seen):
        template = PromptTemplate.from_template("Rules:\n{documents}\nCases:\n{context}\nAsked: {question}")
        (template | either).invoke({"documents": DOCUMENT, "context": OTHER, "question": QUESTION})
        assert both(seen[0]) == ((DOCUMENT, OTHER), QUESTION)

    def test_by_length(self, either, seen):
        template = PromptTemplate.from_template("A:\n{contract}\nB:\n{amendment}\nAsked: {what}")
        (template | either).invoke({"contract": DOCUMENT, "amendment": OTHER, "what": QUESTION})
        assert both(seen[0]) == ((DOCUMENT, OTHER), QUESTION)

    def test_documents_one_by_one(self, either, seen):
        source = "{% for d in docs %}* {{ d.page_content }}\n{% endfor %}Asked: {{ question }}"
        template = PromptTemplate.from_template(source, template_format="jinja2")
        (template | either).invoke({"docs": DOCUMENTS, "question": QUESTION})
        assert both(seen[0]) == ((DOCUMENT, OTHER), QUESTION)
        assert seen[0].target.text == as_user(f"* {DOCUMENT}\n* {OTHER}\nAsked: {QUESTION}")

    def test_in_two_messages(self, chat, seen):
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Law: {documents}"), ("human", "Case: {context}"), ("human", "{question}")]
        )
        (prompt | chat).invoke({"documents": DOCUMENT, "context": OTHER, "question": QUESTION})
        assert both(seen[0]) == ((DOCUMENT, OTHER), QUESTION)

    def test_what_the_template_does_not_use_is_left_out(self, either, seen):
        template = PromptTemplate.from_template("{context}\nAsked: {question}")
        values = {"context": DOCUMENT, "docs": [Document(page_content=DOCUMENT[:300])], "notes": LONG}
        (template | either).invoke({**values, "question": QUESTION})
        expect(seen[0], as_user(f"{DOCUMENT}\nAsked: {QUESTION}"))


class TestTemplates:
    @pytest.mark.parametrize("given", [DOCUMENT, [Document(page_content=DOCUMENT)]])
    def test_a_partial_context(self, either, seen, given):
        template = PromptTemplate.from_template(
            "{% for d in docs %}{{ d.page_content }}{% endfor %}{{ book }}\nAsked: {{ question }}",
            template_format="jinja2",
            partial_variables={"docs": given, "book": ""} if isinstance(given, list) else {"book": given, "docs": []},
        )
        (template | either).invoke({"question": QUESTION})
        expect(seen[0], as_user(f"{DOCUMENT}\nAsked: {QUESTION}"))

    def test_a_partial_context_that_a_function_returns(self, chat, seen):
        """Its value is not known, so the context is looked for in the text."""
        document = words(4, 600)
        prompt = ChatPromptTemplate.from_template("{context}\n\nQuestion: {question}").partial(context=lambda: document)
        (prompt | chat).invoke({"question": QUESTION})
        assert seen[0].target.contexts == (document,) and seen[0].target.query == QUESTION
        assert seen[0].target.segmentation not in ("plain", "template")

    def test_a_partial_context_of_one_message(self, chat, seen):
        inner = PromptTemplate.from_template("{context}\n{question}", partial_variables={"context": DOCUMENT})
        prompt = ChatPromptTemplate.from_messages([HumanMessagePromptTemplate(prompt=inner)])
        (prompt | chat).invoke({"question": QUESTION})
        expect(seen[0], as_user(f"{DOCUMENT}\n{QUESTION}"))

    def test_a_partial_context_of_a_conversation(self, chat, seen):
        prompt = ChatPromptTemplate.from_messages([("human", "{context}\n{question}")]).partial(context=DOCUMENT)
        (prompt | chat).invoke({"question": QUESTION})
        expect(seen[0], as_user(f"{DOCUMENT}\n{QUESTION}"))

    def test_one_variable_given_as_it_is(self, either, seen):
        (PromptTemplate.from_template("What is in {context} ?") | either).invoke(DOCUMENT)
        expect(seen[0], as_user(f"What is in {DOCUMENT} ?"), query="?")

    def test_few_shots(self, either, seen):
        template = FewShotPromptTemplate(
            examples=[{"q": "a?", "a": "b"}],
            example_prompt=PromptTemplate.from_template("Q: {q} A: {a}"),
            prefix="Like this:",
            suffix="Read:\n{context}\nQ: {question} A:",
            input_variables=["context", "question"],
        )
        (template | either).invoke({"context": DOCUMENT, "question": QUESTION})
        expect(seen[0], as_user(f"Like this:\n\nQ: a? A: b\n\nRead:\n{DOCUMENT}\nQ: {QUESTION} A:"))

    def test_few_shots_of_messages(self, chat, seen):
        shots = FewShotChatMessagePromptTemplate(
            examples=[{"q": "a?", "a": "b"}],
            example_prompt=ChatPromptTemplate.from_messages([("human", "{q}"), ("ai", "{a}")]),
        )
        prompt = ChatPromptTemplate.from_messages([("system", "{context}"), shots, ("human", "{question}")])
        (prompt | chat).invoke({"context": DOCUMENT, "question": QUESTION})
        assert both(seen[0]) == ((DOCUMENT,), QUESTION)

    def test_a_message_of_several_parts(self, chat, seen):
        parts = [{"type": "text", "text": "Read this:"}, {"type": "text", "text": "{context}"}, "{question}"]
        prompt = ChatPromptTemplate.from_messages([("human", parts)])
        (prompt | chat).invoke({"context": DOCUMENT, "question": QUESTION})
        expect(seen[0], as_user(f"Read this:\n\n{DOCUMENT}\n\n{QUESTION}"))


class TestNothingRetrieved:
    @pytest.mark.in_turn(3)
    @pytest.mark.parametrize("context", [[], "", " \n", [None], ["", " "], [Document(page_content="")], ()])
    @pytest.mark.parametrize("text", [f"Context:\n\n\nAsked: {QUESTION}", f"{LONG}\n\n{QUESTION}"])
    def test_the_call_says_so(self, either, seen, context, text):
        either.invoke(text, rapid_context=context, rapid_query=" ")
        assert seen[0].target.text == seen[0].drafter.text == as_user(text)
        assert seen[0].compression is None and seen[0].target.segmentation == "plain"

    def test_some_are_empty(self, either, seen):
        context = [Document(page_content=""), None, Document(page_content=DOCUMENT)]
        either.invoke(f"{DOCUMENT}\nAsked: {QUESTION}", rapid_context=context, rapid_query=QUESTION)
        expect(seen[0], as_user(f"{DOCUMENT}\nAsked: {QUESTION}"), segmentation="explicit")

    @pytest.mark.parametrize("context", ["", [], None, [Document(page_content="")]])
    def test_the_template_says_so(self, either, seen, context):
        """A long instruction must not pass for the context that is missing."""
        template = PromptTemplate.from_template(LONG + "\n\nContext:\n{context}\n\nAsked: {question}")
        text = (template | either).first.invoke({"context": context, "question": QUESTION}).to_string()
        (template | either).invoke({"context": context, "question": QUESTION})
        assert seen[0].target.text == seen[0].drafter.text == as_user(text)
        assert seen[0].compression is None

    def test_beside_a_long_history(self, chat, seen):
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Use this: {context}"), MessagesPlaceholder("history"), ("human", "{question}")]
        )
        (prompt | chat).invoke({"context": "", "history": HISTORY, "question": QUESTION})
        assert seen[0].drafter.text == seen[0].target.text

    def test_a_message_says_so(self, chat, seen):
        human = HumanMessage(f"{LONG}\n\n{QUESTION}", additional_kwargs={"rapid_context": []})
        chat.invoke([human])
        assert seen[0].compression is None and seen[0].drafter.text == seen[0].target.text

    @pytest.mark.parametrize("context", [{"a": 1}, 3, [3], [["a"]]])
    def test_what_is_no_context_is_refused(self, either, context):
        with pytest.raises(PromptError, match="rapid_context"):
            either.invoke("hello", rapid_context=context)

    def test_what_is_no_question_is_refused(self, either):
        with pytest.raises(PromptError, match="rapid_query must be a text"):
            either.invoke("hello", rapid_query=["a"])


class TestMemory:
    def test_many_long_renderings(self, engine):
        """60 chains at once, each with its own megabyte of history: what is remembered of them is small."""
        RapidLLM(engine=engine)
        prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{context} {question}")])

        def render(number):
            history = [HumanMessage(f"{number} " * 100_000)]
            values = {"context": words(1000 + number, 60), "question": f"number {number}?", "history": history}
            prompt.invoke(values)

        render(0)
        tracemalloc.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(render, range(60)))
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept < 1_000_000
        assert not TEMPLATES._pending and not TEMPLATES._running

    def test_chains_that_end_leave_nothing_behind(self, chat):
        chain = ChatPromptTemplate.from_messages([("human", "{context} {question}")]) | chat
        values = {"context": DOCUMENT, "question": QUESTION}
        chain.invoke(values)
        stream = chain.stream(values)
        next(stream)
        stream.close()
        with pytest.raises(KeyError):
            chain.invoke({"context": DOCUMENT})
        assert not TEMPLATES._pending and not TEMPLATES._running


class TestInputsOfTheRunAround:
    """Nodes of graphs and LLMChain put prompts together without a template that is told of."""

    def test_a_node_with_an_f_string(self, either, seen):
        from langgraph.graph import START, StateGraph
        from typing_extensions import TypedDict

        class State(TypedDict):
            question: str
            documents: list
            answer: object

        def generate(state):
            context = "\n\n".join(document.page_content for document in state["documents"])
            return {"answer": either.invoke(f"Be brief.\n{context}\n{state['question']}")}

        builder = StateGraph(State)
        builder.add_node("generate", generate)
        builder.add_edge(START, "generate")
        builder.compile().invoke({"question": QUESTION, "documents": DOCUMENTS})
        assert both(seen[0]) == ((DOCUMENT, OTHER), QUESTION)
        assert seen[0].target.segmentation == "chain"

    def test_switched_off(self, engine, seen):
        from langchain_core.runnables import RunnableLambda

        quiet = ChatRapid(engine=engine, use_templates=False)
        chain = RunnableLambda(lambda given: quiet.invoke(f"{given['context']}\n{given['question']}"))
        chain.invoke({"context": DOCUMENT, "question": QUESTION})
        assert seen[0].target.segmentation == "plain"


class TestRepeated:
    def test_a_context_that_is_printed_twice(self, either, seen):
        template = PromptTemplate.from_template("{context}\nAgain:\n{context}\nAsked: {question}")
        (template | either).invoke({"context": DOCUMENT, "question": QUESTION})
        assert both(seen[0]) == ((DOCUMENT, DOCUMENT), QUESTION)

    def test_a_context_of_an_earlier_turn(self, llm, seen):
        llm.invoke(f"Human: {DOCUMENT} First?\nAI: this\nHuman: {DOCUMENT}\n{QUESTION}", rapid_context=[DOCUMENT])
        assert seen[0].target.contexts == (DOCUMENT, DOCUMENT)

    def test_a_short_one_counts_where_it_stands_first(self, either, seen):
        either.invoke("the word is the word", rapid_context="the", rapid_query="which?")
        assert seen[0].target.contexts == ("the",)


@pytest.mark.parametrize("name", ["generation", "llm_response", "prediction", "student_answer", "existing_answer"])
@pytest.mark.parametrize("size", [500, 3000])
def test_an_answer_that_is_judged_is_no_context(either, seen, name, size):
    judged = ("They are as follows. " * 200)[:size]
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You grade whether an answer resolves a question. Give a binary score 'yes' or 'no'."),
            ("human", f"User question: \n\n {{question}} \n\n LLM generation: {{{name}}}"),
        ]
    )
    (prompt | either).invoke({"question": QUESTION, name: judged})
    assert seen[0].target.contexts == () and seen[0].drafter.text == seen[0].target.text


def test_an_answer_is_judged_by_what_was_retrieved(either, seen):
    prompt = ChatPromptTemplate.from_template("Set of facts: \n\n {documents} \n\n LLM generation: {generation}")
    (prompt | either).invoke({"documents": [Document(DOCUMENT), Document(OTHER)], "generation": "It says that."})
    assert seen[0].target.contexts and seen[0].target.query == "It says that."
