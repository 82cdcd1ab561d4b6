"""LangChain's own chains, unchanged: what each of the two models reads, word for word."""

import warnings

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_rapid import ChatRapid, RapidLLM, in_document_order
from rapid_integrations import PromptError
from tests.toys.langchain_llms import DOCUMENT, QUESTION, as_user, expect

TEMPLATE = "Read this.\n{context}\nAsked: {question}"
PIECES = DOCUMENT.split(" ")
PASSAGES = [" ".join(PIECES[i : i + 30]) for i in range(0, 120, 30)]
SHUFFLED = [PASSAGES[i] for i in (2, 0, 3, 1)]
JOINED = "\n\n".join(PASSAGES)
FILLED = f"Read this.\n{JOINED}\nAsked: {QUESTION}"


class Fixed(BaseRetriever):
    """Gives the passages in an order that is not the document's."""

    def _get_relevant_documents(self, query, *, run_manager):
        return [
            Document(page_content=text, metadata={"source": "book", "start_index": DOCUMENT.index(text)})
            for text in SHUFFLED
        ]


class Ends(BaseCallbackHandler):
    """What the model calls ended with."""

    def __init__(self):
        self.infos = []

    def on_llm_end(self, response, **kwargs):
        self.infos.append(response.generations[0][0].generation_info)


def joined(documents):
    return "\n\n".join(document.page_content for document in documents)


@pytest.fixture
def rag(either):
    prompt = PromptTemplate.from_template(TEMPLATE)
    context = Fixed() | in_document_order | joined
    return {"context": context, "question": RunnablePassthrough()} | prompt | either | StrOutputParser()


class TestExpressionLanguage:
    def test_invoke(self, rag, seen):
        assert isinstance(rag.invoke(QUESTION), str)
        expect(seen[0], as_user(FILLED), JOINED)

    def test_stream(self, rag, seen):
        whole = rag.invoke(QUESTION)
        assert "".join(rag.stream(QUESTION)) == whole
        expect(seen[1], as_user(FILLED), JOINED)

    def test_batch(self, rag, seen):
        questions = [QUESTION, "what else is there?"]
        alone = [rag.invoke(question) for question in questions]
        assert rag.batch(questions) == alone
        together = {prepared.target.query: prepared for prepared in seen[2:]}  # in any order
        assert together.keys() == set(questions) and len(seen) == 4
        for question, prepared in together.items():
            expect(prepared, as_user(FILLED.replace(QUESTION, question)), JOINED, query=question)

    async def test_async_forms(self, rag, seen):
        whole = rag.invoke(QUESTION)
        assert await rag.ainvoke(QUESTION) == whole
        assert "".join([piece async for piece in rag.astream(QUESTION)]) == whole
        assert await rag.abatch([QUESTION, QUESTION]) == [whole, whole]
        assert len(seen) == 5
        for prepared in seen:
            expect(prepared, as_user(FILLED), JOINED)

    async def test_events(self, rag):
        events = [event async for event in rag.astream_events(QUESTION, version="v2")]
        names = [event["event"] for event in events]
        assert any(name in ("on_llm_stream", "on_chat_model_stream") for name in names)

    def test_bound_settings(self, either, seen):
        chain = PromptTemplate.from_template(TEMPLATE) | either.bind(max_tokens=3, stop=["zzz"])
        ends = Ends()
        chain.invoke({"context": DOCUMENT, "question": QUESTION}, {"callbacks": [ends]})
        assert ends.infos[0]["rapid"]["tokens"] == 3
        expect(seen[0], as_user(TEMPLATE.format(context=DOCUMENT, question=QUESTION)))


def test_documents_printed_as_python_writes_them(llm, seen):
    chain = {"context": Fixed(), "question": RunnablePassthrough()} | PromptTemplate.from_template(TEMPLATE) | llm
    chain.invoke(QUESTION)
    assert seen[0].target.contexts == (str(Fixed().invoke(QUESTION)),)
    assert seen[0].target.segmentation == "template"


class TestRetrievalChains:
    @pytest.fixture(autouse=True)
    def classic(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield pytest.importorskip("langchain_classic.chains")

    def test_stuff_documents(self, llm, seen):
        from langchain_classic.chains.combine_documents import create_stuff_documents_chain

        chain = create_stuff_documents_chain(llm, PromptTemplate.from_template(TEMPLATE))
        documents = in_document_order(Fixed().invoke(QUESTION))
        assert isinstance(chain.invoke({"context": documents, "question": QUESTION}), str)
        expect(seen[0], as_user(FILLED), JOINED)

    def test_retrieval_chain_with_the_context_in_the_system_message(self, chat, seen):
        from langchain_classic.chains import create_retrieval_chain
        from langchain_classic.chains.combine_documents import create_stuff_documents_chain

        prompt = ChatPromptTemplate.from_messages([("system", "Use this.\n\n{context}"), ("human", "{input}")])
        chain = create_retrieval_chain(Fixed(), create_stuff_documents_chain(chat, prompt))
        result = chain.invoke({"input": QUESTION})
        context = "\n\n".join(SHUFFLED)
        assert set(result) == {"input", "context", "answer"}
        target = (
            f"<|im_start|>system\nUse this.\n\n{context}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        expect(seen[0], target, context)
        assert list(chain.stream({"input": QUESTION}))[-1].keys() == {"answer"}
        expect(seen[1], target, context)


@pytest.mark.filterwarnings("ignore:.*deprecated")  # LangChain recommends LangGraph in its place
def test_message_history(chat, seen):
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Use this.\n{context}"), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    histories = {}
    chain = RunnableWithMessageHistory(
        prompt | chat,
        lambda session: histories.setdefault(session, InMemoryChatMessageHistory()),
        input_messages_key="question",
        history_messages_key="history",
    )
    settings = {"configurable": {"session_id": "one"}}
    chain.invoke({"context": DOCUMENT, "question": "what was first?"}, settings)
    chain.invoke({"context": DOCUMENT, "question": QUESTION}, settings)
    assert len(histories["one"].messages) == 4
    head = f"<|im_start|>system\nUse this.\n{DOCUMENT}<|im_end|>\n<|im_start|>user\nwhat was first?<|im_end|>\n"
    expect(seen[0], head + "<|im_start|>assistant\n", query="what was first?")
    answer = histories["one"].messages[1].content
    tail = f"<|im_start|>assistant\n{answer}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    expect(seen[1], head + tail)


def test_the_question_of_an_earlier_turn_is_not_asked_again(chat, seen):
    prompt = ChatPromptTemplate.from_messages([("human", TEMPLATE)])
    first = prompt.invoke({"context": DOCUMENT, "question": "what was first?"}).to_messages()
    answer = chat.invoke(first)
    chat.invoke([*first, answer, HumanMessage(QUESTION)])
    assert [prepared.target.query for prepared in seen] == ["what was first?", QUESTION]
    assert seen[1].target.contexts == (DOCUMENT,)


async def test_a_node_of_a_graph(chat, seen):
    from langgraph.graph import END, START, MessagesState, StateGraph

    prompt = ChatPromptTemplate.from_messages([("system", "Use this.\n{context}"), MessagesPlaceholder("messages")])

    def answer(state):
        return {"messages": [(prompt | chat).invoke({"context": DOCUMENT, "messages": state["messages"]})]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    graph = builder.compile()
    target = (
        f"<|im_start|>system\nUse this.\n{DOCUMENT}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert len(graph.invoke({"messages": [("human", QUESTION)]})["messages"]) == 2
    await graph.ainvoke({"messages": [("human", QUESTION)]})
    pieces = list(graph.stream({"messages": [("human", QUESTION)]}, stream_mode="messages"))
    assert len(pieces) > 1
    assert len(seen) == 3
    for prepared in seen:
        expect(prepared, target)


def test_fallbacks_and_retries(engine, seen):
    rejected = RapidLLM(engine=engine, max_tokens=100_000)
    chain = PromptTemplate.from_template(TEMPLATE) | rejected.with_fallbacks([RapidLLM(engine=engine)])
    values = {"context": DOCUMENT, "question": QUESTION}
    assert chain.invoke(values) == (PromptTemplate.from_template(TEMPLATE) | RapidLLM(engine=engine)).invoke(values)
    assert len(chain.batch([values, values])) == 2

    calls = []

    def flaky(message):
        calls.append(message)
        if len(calls) == 1:
            raise RuntimeError("at first")
        return message

    retried = (ChatRapid(engine=engine) | RunnableLambda(flaky)).with_retry(stop_after_attempt=2)
    assert retried.invoke(QUESTION).content == calls[0].content == calls[1].content


def test_one_bad_prompt_leaves_the_rest_of_a_batch_alone(either):
    answers = either.batch(["fine", "", "fine"], return_exceptions=True)
    assert answers[0] is not None and isinstance(answers[1], PromptError)
    assert [type(answer) for answer in (answers[0], answers[2])] == [type(either.invoke("fine"))] * 2
