"""The chains of langchain_classic, unchanged: which render without telling anybody, most of them."""

import warnings

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from langchain_rapid import ChatRapid, RapidLLM
from tests.toys.both_texts import both
from tests.toys.langchain_llms import DOCUMENT, QUESTION
from tests.toys.models import words
from tests.toys.puppet import puppet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    classic = pytest.importorskip("langchain_classic.chains")
    from langchain_classic.chains.combine_documents import create_stuff_documents_chain
    from langchain_classic.chains.question_answering import load_qa_chain
    from langchain_classic.chains.summarize import load_summarize_chain

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deprecated")

OTHER = words(9, 120)
DOCUMENTS = [Document(page_content=DOCUMENT), Document(page_content=OTHER)]


class Fixed(BaseRetriever):
    """Finds the same documents whatever is asked."""

    found: list[Document] = DOCUMENTS

    def _get_relevant_documents(self, query, *, run_manager):
        return self.found


@pytest.fixture(params=[RapidLLM, ChatRapid])
def model(request):
    """A model that says what it is told, and an engine that keeps what it read."""
    return request.param(engine=puppet(*["Fine."] * 9))


def seen(model):
    return model.rapid_engine.seen


class TestQuestionAnswering:
    def test_stuff(self, model):
        chain = load_qa_chain(model, chain_type="stuff")
        assert chain.invoke({"input_documents": DOCUMENTS, "question": QUESTION})["output_text"] == "Fine."
        contexts, query = both(seen(model)[0])
        assert contexts == (f"{DOCUMENT}\n\n{OTHER}",) and query == QUESTION

    def test_map_reduce(self, model):
        chain = load_qa_chain(model, chain_type="map_reduce", token_max=9000)
        assert chain.invoke({"input_documents": DOCUMENTS, "question": QUESTION})["output_text"] == "Fine."
        at_once = sorted(both(prepared) for prepared in seen(model)[:2])  # in any order
        assert at_once == sorted([((DOCUMENT,), QUESTION), ((OTHER,), QUESTION)])
        assert seen(model)[2].target.contexts == ("Fine.\n\nFine.",)  # too short to be compressed
        assert seen(model)[2].drafter.text == seen(model)[2].target.text

    def test_refine(self, model):
        chain = load_qa_chain(model, chain_type="refine")
        assert chain.invoke({"input_documents": DOCUMENTS, "question": QUESTION})["output_text"] == "Fine."
        assert [both(prepared) for prepared in seen(model)] == [((DOCUMENT,), QUESTION), ((OTHER,), QUESTION)]

    def test_retrieval_qa(self, model):
        chain = classic.RetrievalQA.from_chain_type(model, retriever=Fixed())
        assert chain.invoke(QUESTION)["result"] == "Fine."
        assert both(seen(model)[0]) == ((f"{DOCUMENT}\n\n{OTHER}",), QUESTION)

    def test_retrieval_qa_that_finds_nothing(self, model):
        chain = classic.RetrievalQA.from_chain_type(model, retriever=Fixed(found=[]))
        assert chain.invoke(QUESTION)["result"] == "Fine."
        assert seen(model)[0].target.text == seen(model)[0].drafter.text and QUESTION in seen(model)[0].target.text

    def test_a_conversation(self, model):
        chain = classic.ConversationalRetrievalChain.from_llm(model, Fixed())
        history = [(f"What was first? {words(4, 500)}", f"That was {words(5, 500)}")]
        model.rapid_engine.answers.appendleft("and which is last?")
        assert chain.invoke({"question": QUESTION, "chat_history": history})["answer"] == "Fine."
        condensed, answered = seen(model)
        assert condensed.target.segmentation != "template"
        assert both(answered) == ((f"{DOCUMENT}\n\n{OTHER}",), "and which is last?")

    async def test_async(self, model):
        chain = classic.RetrievalQA.from_chain_type(model, retriever=Fixed())
        assert (await chain.ainvoke(QUESTION))["result"] == "Fine."
        assert both(seen(model)[0]) == ((f"{DOCUMENT}\n\n{OTHER}",), QUESTION)


class TestSummaries:
    @pytest.mark.parametrize("kind", ["stuff", "map_reduce", "refine"])
    def test_answers(self, model, kind):
        chain = load_summarize_chain(model, chain_type=kind)
        assert chain.invoke({"input_documents": DOCUMENTS})["output_text"] == "Fine."
        assert any(DOCUMENT in prepared.target.text for prepared in seen(model)[:2])  # in any order


class TestExpressionLanguage:
    def test_a_conversation(self, model):
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Use:\n{context}"), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
        condense = ChatPromptTemplate.from_messages([MessagesPlaceholder("chat_history"), ("human", "{input}")])
        retriever = classic.create_history_aware_retriever(model, Fixed(), condense)
        chain = classic.create_retrieval_chain(retriever, create_stuff_documents_chain(model, prompt))
        history = [HumanMessage("What was first?"), AIMessage("That was " + words(5, 500))]
        assert chain.invoke({"input": QUESTION, "chat_history": history})["answer"] == "Fine."
        assert both(seen(model)[1]) == ((f"{DOCUMENT}\n\n{OTHER}",), QUESTION)

    def test_nothing_found(self, model):
        prompt = ChatPromptTemplate.from_messages([("system", words(7, 500) + "\n\n{context}"), ("human", "{input}")])
        chain = classic.create_retrieval_chain(Fixed(found=[]), create_stuff_documents_chain(model, prompt))
        assert chain.invoke({"input": QUESTION})["answer"] == "Fine."
        assert seen(model)[0].drafter.text == seen(model)[0].target.text

    def test_labels_of_documents(self, model):
        prompt = PromptTemplate.from_template("{context}\n\n{input}")
        label = PromptTemplate.from_template("Source {source}: {page_content}")
        chain = create_stuff_documents_chain(model, prompt, document_prompt=label)
        named = [Document(page_content=d.page_content, metadata={"source": i}) for i, d in enumerate(DOCUMENTS)]
        chain.invoke({"context": named, "input": QUESTION})
        assert both(seen(model)[0]) == ((f"Source 0: {DOCUMENT}\n\nSource 1: {OTHER}",), QUESTION)


class Person(BaseModel):
    name: str


class TestParsers:
    @pytest.mark.parametrize(
        "parser", [JsonOutputParser(pydantic_object=Person), PydanticOutputParser(pydantic_object=Person)]
    )
    def test_a_schema_in_the_prompt_is_not_shown_again(self, parser):
        chat = ChatRapid(engine=puppet('{"name": "Ada"}'))
        prompt = PromptTemplate.from_template("{query}\n{format_instructions}").partial(
            format_instructions=parser.get_format_instructions()
        )
        wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema()}}
        found = (prompt | chat.bind(response_format=wanted) | parser).invoke({"query": "Who?"})
        assert found in (Person(name="Ada"), {"name": "Ada"})
        assert seen(chat)[0].target.text.count('"properties": {"name"') == 1

    def test_a_parser_that_asks_again(self):
        from langchain_classic.output_parsers import OutputFixingParser, RetryWithErrorOutputParser

        chat = ChatRapid(engine=puppet("no JSON", '{"name": "Ada"}', '{"name": "Ada"}'))
        parser = PydanticOutputParser(pydantic_object=Person)
        fixing = OutputFixingParser.from_llm(parser=parser, llm=chat)
        assert (chat | fixing).invoke("Who?") == Person(name="Ada")
        retrying = RetryWithErrorOutputParser.from_llm(parser=parser, llm=chat)
        prompt = PromptTemplate.from_template("Who?").invoke({})
        assert retrying.parse_with_prompt("no JSON", prompt) == Person(name="Ada")


class TestAgents:
    def test_react_in_text(self):
        from langchain_classic.agents import AgentExecutor, create_react_agent
        from langchain_core.tools import Tool

        prompt = PromptTemplate.from_template(
            "Tools:\n{tools}\nUse one of {tool_names}.\nThought: ...\nAction: ...\nAction Input: ...\n"
            "Observation: ...\nFinal Answer: ...\n\nQuestion: {input}\n{agent_scratchpad}"
        )
        tool = Tool(name="search", func=lambda _: words(4, 500), description="Searches.")
        first = "Thought: look\nAction: search\nAction Input: x\nObservation: made up"
        llm = RapidLLM(engine=puppet(first, "Thought: done\nFinal Answer: 42"))
        executor = AgentExecutor(agent=create_react_agent(llm, [tool], prompt), tools=[tool])
        assert executor.invoke({"input": QUESTION})["output"] == "42"
        assert "made up" not in seen(llm)[1].target.text  # the agent's stop string ends the answer before it

    def test_calling_tools(self):
        from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
        from langchain_core.tools import tool

        from tests.toys.puppet import call

        @tool
        def search(query: str) -> str:
            """Search the handbook."""
            return words(4, 500)

        prompt = ChatPromptTemplate.from_messages([("human", "{input}"), MessagesPlaceholder("agent_scratchpad")])
        chat = ChatRapid(engine=puppet(call("search", '{"query": "x"}'), "42"))
        executor = AgentExecutor(agent=create_tool_calling_agent(chat, [search], prompt), tools=[search])
        assert executor.invoke({"input": QUESTION})["output"] == "42"
        assert seen(chat)[1].target.segmentation == "tool messages"
        assert both(seen(chat)[1]) == ((words(4, 500),), QUESTION)


def test_a_chain_of_steps_keeps_the_template(model):
    """Whatever stands between template and model, as long as it hands the text on."""
    prompt = PromptTemplate.from_template("{context}\nAsked: {question}")
    chain = prompt | RunnableLambda(lambda value: value.to_string()) | model
    chain.invoke({"context": DOCUMENT, "question": QUESTION})
    assert both(seen(model)[0]) == ((DOCUMENT,), QUESTION)
