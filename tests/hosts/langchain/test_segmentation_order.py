"""Who says which part of a prompt is context: call, message, tool result, template, the text itself; in that order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate

from langchain_rapid import ChatRapid, RapidLLM, capture_templates
from langchain_rapid.template_capture import TEMPLATES, TemplateCapture
from rapid_integrations import PromptError
from tests.toys.langchain_llms import DOCUMENT, QUESTION, as_user, expect
from tests.toys.models import words

TEMPLATE = PromptTemplate.from_template("Read this.\n{context}\nAsked: {question}")
TEXT = TEMPLATE.format(context=DOCUMENT, question=QUESTION)
OTHER = words(9, 120)
LONG = words(4, 500)


def segmentation(either, prompt, **kwargs):
    result = either.generate_prompt([either._convert_input(prompt)], **kwargs)
    found = result.generations[0][0]
    info = found.message.response_metadata if hasattr(found, "message") else found.generation_info
    return info["rapid"]["segmentation"]


class TestExplicit:
    @pytest.mark.parametrize("context", [DOCUMENT, [DOCUMENT], [Document(page_content=DOCUMENT)]])
    def test_the_call_says_it(self, either, seen, context):
        assert segmentation(either, TEXT, rapid_context=context, rapid_query=QUESTION) == "explicit"
        expect(seen[0], as_user(TEXT), segmentation="explicit")

    def test_it_wins_over_the_template(self, either, seen):
        value = TEMPLATE.invoke({"context": DOCUMENT, "question": QUESTION})
        part = DOCUMENT[: len(DOCUMENT) // 2]
        assert segmentation(either, value, rapid_context=part, rapid_query="another?") == "explicit"
        assert seen[0].target.contexts == (part.strip(),) and seen[0].target.query == "another?"

    def test_bound_to_the_model(self, either, seen):
        either.bind(rapid_context=DOCUMENT, rapid_query=QUESTION).invoke(TEXT)
        expect(seen[0], as_user(TEXT), segmentation="explicit")

    def test_several_documents_are_spans_of_their_own(self, either, seen):
        either.invoke(f"{DOCUMENT}\n--\n{OTHER}\n{QUESTION}", rapid_context=[OTHER, DOCUMENT], rapid_query=QUESTION)
        assert seen[0].target.contexts == (DOCUMENT, OTHER)

    def test_a_question_alone(self, either, seen):
        either.invoke(f"{LONG}\n\nquestion in the text?", rapid_query="the real question?")
        assert seen[0].target.segmentation == "heuristic" and seen[0].target.query == "the real question?"

    def test_a_context_that_is_not_there(self, either):
        with pytest.raises(PromptError, match="does not occur in the prompt"):
            either.invoke(TEXT, rapid_context="something else altogether")


class TestMessages:
    def test_annotated(self, chat, seen):
        system = SystemMessage(f"Use: {DOCUMENT}", additional_kwargs={"rapid_context": DOCUMENT})
        assert segmentation(chat, [system, HumanMessage(QUESTION)]) == "annotations"
        assert seen[0].target.contexts == (DOCUMENT,) and seen[0].target.query == QUESTION

    def test_all_of_a_message(self, chat, seen):
        human = HumanMessage(DOCUMENT, additional_kwargs={"rapid_context": True})
        chat.invoke([human, HumanMessage(QUESTION)])
        assert seen[0].target.contexts == (DOCUMENT,) and seen[0].target.segmentation == "annotations"

    def test_its_question(self, chat, seen):
        kwargs = {"rapid_context": DOCUMENT, "rapid_query": "asked apart?"}
        chat.invoke([HumanMessage(f"{DOCUMENT}\n{QUESTION}", additional_kwargs=kwargs)])
        assert seen[0].target.query == "asked apart?"

    def test_they_win_over_the_template(self, chat, seen):
        messages = ChatPromptTemplate.from_messages([("human", "{context}\n\n{question}")]).format_messages(
            context=DOCUMENT, question=QUESTION
        )
        messages[0].additional_kwargs["rapid_context"] = DOCUMENT[:300]
        chat.invoke(messages)
        assert seen[0].target.contexts == (DOCUMENT[:300].strip(),)
        assert seen[0].target.segmentation == "annotations"

    def test_one_that_was_cut_since_is_looked_at_anew(self, chat):
        human = HumanMessage(DOCUMENT[:200], additional_kwargs={"rapid_context": DOCUMENT})
        assert segmentation(chat, [human, HumanMessage(QUESTION)]) == "plain"

    def test_tool_results(self, chat, seen):
        template = ChatPromptTemplate.from_messages([("system", "{context}"), ("human", "{question}")])
        call = {"name": "search", "args": {"query": "x"}, "id": "1", "type": "tool_call"}
        messages = [
            *template.invoke({"context": DOCUMENT, "question": QUESTION}).to_messages(),
            AIMessage("", tool_calls=[call]),
            ToolMessage(LONG, tool_call_id="1", name="search"),
        ]
        assert segmentation(chat, messages) == "tool messages"
        assert seen[0].target.contexts == (LONG,) and seen[0].target.query == QUESTION


class TestTemplates:
    @pytest.mark.parametrize("name", ["context", "documents", "context_str"])
    def test_the_variable_by_name(self, either, seen, name):
        template = PromptTemplate.from_template(f"{{{name}}}\n{{longer}}\nAsked: {{question}}")
        values = {name: DOCUMENT, "longer": words(7, 150), "question": QUESTION}
        assert segmentation(either, template.invoke(values)) == "template"
        assert seen[0].target.contexts == (DOCUMENT,) and seen[0].target.query == QUESTION

    def test_else_the_longest(self, either, seen):
        template = PromptTemplate.from_template("{handbook}\nAsked: {what}")
        assert segmentation(either, template.invoke({"handbook": DOCUMENT, "what": QUESTION})) == "template"
        expect(seen[0], as_user(f"{DOCUMENT}\nAsked: {QUESTION}"))

    def test_short_values_of_other_names_are_no_context(self, either):
        template = PromptTemplate.from_template("A {kind} joke about {topic}")
        assert segmentation(either, template.invoke({"kind": "short", "topic": "cats"})) == "plain"

    def test_jinja_and_partial_variables(self, either, seen):
        template = PromptTemplate.from_template(
            "{{ who }}: {{ context }} {{ question }}", template_format="jinja2"
        ).partial(who="You")
        assert segmentation(either, template.invoke({"context": DOCUMENT, "question": QUESTION})) == "template"
        expect(seen[0], as_user(f"You: {DOCUMENT} {QUESTION}"))

    def test_only_what_stands_there_verbatim(self, either):
        shouted = PromptTemplate.from_template("{{ context | upper }}\n{{ question }}", template_format="jinja2")
        assert segmentation(either, shouted.invoke({"context": DOCUMENT, "question": QUESTION})) == "plain"
        value = TEMPLATE.invoke({"context": DOCUMENT, "question": QUESTION}).to_string()
        assert segmentation(either, value.replace("Read", "Look at")) == "plain"

    def test_a_prompt_that_is_all_context_is_still_answered(self, either):
        template = PromptTemplate.from_template("{context}")
        assert segmentation(either, template.invoke({"context": DOCUMENT})) == "plain"

    def test_switched_off_for_a_model(self, engine):
        value = TEMPLATE.invoke({"context": OTHER, "question": QUESTION})
        for quiet in (RapidLLM(engine=engine, use_templates=False), ChatRapid(engine=engine, use_templates=False)):
            assert segmentation(quiet, value) == "plain"

    def test_switched_off_for_the_process(self, either):
        capture_templates(False)
        value = TEMPLATE.invoke({"context": words(5, 120), "question": QUESTION})
        assert segmentation(either, value) == "plain"

    def test_a_failing_template_is_forgotten(self, llm):
        with pytest.raises(KeyError):
            TEMPLATE.invoke({"context": DOCUMENT})
        assert not TEMPLATES._pending


def test_the_text_itself(either):
    assert segmentation(either, f"Context: {LONG}\n\nQuestion: which?") == "delimiters"
    assert segmentation(either, f"{LONG}\n\nwhich of them?") == "heuristic"
    assert segmentation(either, "hello") == "plain"


class TestCapture:
    def test_bounded(self):
        from uuid import uuid4

        capture = TemplateCapture(texts=5)
        template = PromptTemplate.from_template("{context} {question}")
        for number in range(50):
            run = uuid4()
            values = {"context": f"context {number}", "question": "why?"}
            capture.on_chain_start({}, values, run_id=run, run_type="prompt")
            capture.on_chain_end(template.invoke(values), run_id=run)
            capture.on_chain_start({}, values, run_id=uuid4(), run_type="prompt")  # never ends
        assert len(capture._by_text) <= 5 and len(capture._pending) <= 5
        assert capture.of("context 49 why?", None).query == "why?"
        assert capture.of("context 3 why?", None) is None

    def test_other_runs_are_not_kept(self):
        capture = TemplateCapture()
        capture.on_chain_start({}, {"context": DOCUMENT}, run_id=None, run_type="chain")
        assert not capture._pending

    def test_the_same_text_of_two_chains(self, either, seen):
        """One text, cut in two ways at the same time: each chain's model is told its own."""
        half, rest = DOCUMENT[:400].strip(), DOCUMENT[400:].strip()
        ways = [{"context": half, "question": rest}, {"context": f"{half} {rest}", "question": ""}]
        ready = threading.Barrier(2)

        def waiting(value):
            ready.wait(60)  # both have been rendered before either model is called
            return value

        chain = PromptTemplate.from_template("Say: {context} {question}") | waiting | either
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(chain.invoke, ways))
        contexts = sorted((prepared.target.contexts for prepared in seen), key=lambda found: len(found[0]))
        assert contexts == [(half,), (f"{half} {rest}",)]

    def test_many_chains_at_once(self, engine, seen):
        llm = RapidLLM(engine=engine, max_tokens=1, law="target", proposer="none")
        chain = TEMPLATE | llm
        values = [{"context": words(100 + i, 40), "question": f"number {i}?"} for i in range(120)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(chain.invoke, values))
        found = {(prepared.target.contexts, prepared.target.query) for prepared in seen}
        assert found == {((value["context"],), value["question"]) for value in values}

    async def test_many_tasks_at_once(self, engine, seen):
        chat = ChatRapid(engine=engine, max_tokens=1, law="target", proposer="none")
        values = [{"context": words(300 + i, 40), "question": f"number {i}?"} for i in range(60)]
        await (TEMPLATE | chat).abatch(values, {"max_concurrency": 20})
        found = {(prepared.target.contexts, prepared.target.query) for prepared in seen}
        assert found == {((value["context"],), value["question"]) for value in values}
