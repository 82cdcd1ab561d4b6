"""LangChain's own middlewares around an agent whose model writes what the test says: they fire when they should."""

import pytest
from langchain_core import exceptions as langchain_errors
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.tools import tool

from langchain_rapid import ChatRapid
from rapid_integrations import ConfigurationError, PromptError, SamplingParams
from tests.toys.puppet import call, puppet

agents = pytest.importorskip("langchain.agents")
middleware = pytest.importorskip("langchain.agents.middleware")

FINDINGS = "seen " * 200


@tool
def search(query: str) -> str:
    """Search the handbook."""
    return FINDINGS


@tool
def wipe(path: str) -> str:
    """Delete a file."""
    return "gone"


def agent_of(engine, *layers, tools=(search,), **settings):
    return agents.create_agent(ChatRapid(engine=engine), list(tools), middleware=list(layers), **settings)


def answers(result):
    return [message for message in result["messages"] if isinstance(message, AIMessage)]


class TestReportedTokens:
    """They count where the messages' provider is the model's own."""

    def test_one_name_for_the_provider(self):
        chat = ChatRapid(engine=puppet("Fine."))
        assert (
            chat.invoke("How?").response_metadata["model_provider"] == chat._get_ls_params()["ls_provider"] == "rapid"
        )

    @pytest.mark.parametrize("form", ["invoke", "stream"])
    def test_summarization(self, form):
        """By characters it is far below the threshold; by what the model reports (a token a byte) it is not."""
        engine = puppet("First.", "Second.", "They talked.", "Third.")
        layer = middleware.SummarizationMiddleware(
            ChatRapid(engine=engine), trigger=("tokens", 300), keep=("messages", 1)
        )
        agent = agent_of(engine, layer, tools=())
        messages, found = [], None
        for number in range(3):
            messages.append(HumanMessage(f"Question {number}. " + "word " * 40))
            given = {"messages": messages}
            if form == "invoke":
                found = agent.invoke(given)
            else:
                found = list(agent.stream(given, stream_mode="values"))[-1]
            messages = list(found["messages"])
            if any("They talked." in message.text for message in messages):
                break
        assert any("They talked." in message.text for message in messages if isinstance(message, HumanMessage))
        assert count_tokens_approximately(messages) < 300

    def test_scaling(self):
        chat = ChatRapid(engine=puppet("Fine."))
        asked = HumanMessage("How? " * 30)
        messages = [asked, chat.invoke([asked]), HumanMessage("And you?")]
        plain = count_tokens_approximately(messages)
        assert count_tokens_approximately(messages, use_usage_metadata_scaling=True) > plain

    def test_trimming_by_the_models_own_count(self):
        chat = ChatRapid(engine=puppet())
        messages = [HumanMessage("a" * 50), AIMessage("b" * 50), HumanMessage("c" * 50)]
        kept = trim_messages(messages, max_tokens=120, token_counter=chat, strategy="last", start_on="human")
        assert kept == messages[2:]

    def test_context_editing(self):
        engine = puppet(*[call("search", f'{{"query": "{word}"}}') for word in ("one", "two", "three")], "Done.")
        edit = middleware.ClearToolUsesEdit(trigger=1500, keep=1, placeholder="[cleared]")
        layer = middleware.ContextEditingMiddleware(edits=[edit], token_count_method="model")
        result = agent_of(engine, layer).invoke({"messages": [("human", "Search three times.")]})
        assert answers(result)[-1].content == "Done."
        assert "[cleared]" in engine.seen[-1].target.text and "[cleared]" not in engine.seen[1].target.text

    def test_summarization_by_a_share_of_the_window_follows_the_settings(self):
        chat = ChatRapid(engine=puppet())
        chat.max_tokens = 90_000
        layer = middleware.SummarizationMiddleware(chat, trigger=("fraction", 0.5))
        assert layer._get_profile_limits() == 10_000


def retryable(error):
    """Return what LangChain is told of an error of a model; None if it has no class for that, as older versions."""
    if not hasattr(langchain_errors, "ModelError"):
        return None
    assert isinstance(error, langchain_errors.ModelError)
    return error.is_retryable


class TestErrors:
    """A request that cannot work is not tried again; LangChain goes by its own classes."""

    @pytest.mark.parametrize(
        ("error", "question", "settings"),
        [
            (ConfigurationError, "How?", {"temprature": 1}),
            (ConfigurationError, "How?", {"temperature": -1}),
            (PromptError, "", {}),
            (ContextOverflowError, "x" * 200_000, {}),
        ],
    )
    def test_they_are_both(self, error, question, settings):
        chat = ChatRapid(engine=puppet())
        for form in (chat.invoke, lambda *args, **kwargs: list(chat.stream(*args, **kwargs))):
            with pytest.raises(error) as raised:
                form(question, **settings)
            assert retryable(raised.value) in (False, None)

    def test_no_retry(self):
        engine = puppet("Fine.")
        layer = middleware.ModelRetryMiddleware(max_retries=2, initial_delay=0, on_failure="error")
        agent = agents.create_agent(ChatRapid(engine=engine, max_tokens=200_000), middleware=[layer])
        with pytest.raises(ContextOverflowError):
            agent.invoke({"messages": [("human", "How?")]})
        assert len(engine.seen) == 0

    def test_a_fallback(self):
        small = ChatRapid(engine=puppet(), max_tokens=200_000)
        layer = middleware.ModelFallbackMiddleware(ChatRapid(engine=puppet("From the other one.")))
        agent = agents.create_agent(small, middleware=[layer])
        assert answers(agent.invoke({"messages": [("human", "How?")]}))[-1].content == "From the other one."

    def test_a_timeout_may_be_tried_again(self):
        with pytest.raises(TimeoutError) as raised:
            ChatRapid(engine=puppet("Fine."), timeout=1e-6).invoke("How?")
        assert retryable(raised.value) in (True, None)


class TestOthers:
    def test_limits(self):
        engine = puppet(*[call("search", '{"query": "x"}')] * 5)
        layer = middleware.ModelCallLimitMiddleware(run_limit=2, exit_behavior="end")
        assert len(engine.seen) == 0
        agent_of(engine, layer).invoke({"messages": [("human", "Search.")]})
        assert len(engine.seen) == 2
        engine = puppet(*[call("search", '{"query": "x"}')] * 2, "Enough.")
        layer = middleware.ToolCallLimitMiddleware(run_limit=1)
        result = agent_of(engine, layer).invoke({"messages": [("human", "Search.")]})
        results = [message for message in result["messages"] if isinstance(message, ToolMessage)]
        assert [message.status for message in results] == ["success", "error"]

    def test_a_human_in_between(self):
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.types import Command

        engine = puppet(call("wipe", '{"path": "a"}'), "Gone.")
        layer = middleware.HumanInTheLoopMiddleware(interrupt_on={"wipe": True})
        agent = agent_of(engine, layer, tools=(wipe,), checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": "one"}}
        held = agent.invoke({"messages": [("human", "Wipe a.")]}, config)
        assert held["__interrupt__"][0].value["action_requests"][0]["args"] == {"path": "a"}
        result = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
        assert answers(result)[-1].content == "Gone."

    def test_a_choice_of_tools(self):
        """The middleware asks for a structured answer; its own words describe the tools to choose from."""
        chosen = '{"tools": ["wipe"]}'
        engine = puppet(chosen, call("wipe", '{"path": "a"}'), chosen, "Gone.")
        layer = middleware.LLMToolSelectorMiddleware(max_tools=1)
        result = agent_of(engine, layer, tools=(search, wipe)).invoke({"messages": [("human", "Wipe a.")]})
        assert answers(result)[-1].content == "Gone."
        assert [each["function"]["name"] for each in engine.asked[1]["tools"]] == ["wipe"]

    def test_an_emulated_tool(self):
        engine = puppet(call("search", '{"query": "x"}'), "made up", "Done.")
        layer = middleware.LLMToolEmulator(model=ChatRapid(engine=engine))
        result = agent_of(engine, layer).invoke({"messages": [("human", "Search.")]})
        assert [m.content for m in result["messages"] if isinstance(m, ToolMessage)] == ["made up"]

    def test_to_dos_and_personal_data(self):
        engine = puppet("Write to nobody.")
        layers = [middleware.TodoListMiddleware(), middleware.PIIMiddleware("email", strategy="redact")]
        agent_of(engine, *layers).invoke({"messages": [("human", "Write to a@example.com.")]})
        assert "a@example.com" not in engine.seen[0].target.text and "write_todos" in engine.seen[0].target.text


async def test_events(recwarn):
    """Version 3 puts messages together from pieces itself."""
    engine = puppet(call("search", '{"query": "x"}'), "Done.", call("search", '{"query": "x"}'), "Done.")
    agent = agent_of(engine)
    kinds = set()
    async for event in agent.astream_events({"messages": [("human", "Search.")]}, version="v2"):
        kinds.add(event["event"])
    assert {"on_chat_model_stream", "on_chat_model_end", "on_tool_end"} <= kinds
    stream = ChatRapid(engine=puppet("Hello there.")).stream_events("How?", version="v3")
    finished = stream.output
    assert finished.text == "Hello there." and finished.response_metadata["finish_reason"] == "stop"
    assert finished.response_metadata["model_provider"] == "rapid"
    assert finished.usage_metadata["output_tokens"] == len("Hello there.") + 1


@pytest.mark.parametrize("tokens", [20, 400])
def test_sampling_settings_of_an_agents_model(tokens):
    engine = puppet("x" * 100, sampling=SamplingParams(max_new_tokens=50))
    agent = agents.create_agent(ChatRapid(engine=engine, max_tokens=tokens))
    answer = answers(agent.invoke({"messages": [("human", "How?")]}))[-1]
    assert len(answer.content) == min(tokens, 100)
