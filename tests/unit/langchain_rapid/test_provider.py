"""LangChain's factory, which knows its own providers only, told of this one."""

import subprocess
import sys

import pytest

from langchain_rapid import ChatRapid, register_provider
from rapid_integrations import ConfigurationError
from tests.toys.puppet import puppet

factory = pytest.importorskip("langchain.chat_models.base")


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """A table that is as it was when the test is over."""
    monkeypatch.setattr(factory, "_BUILTIN_PROVIDERS", dict(factory._BUILTIN_PROVIDERS))
    factory._get_chat_model_creator.cache_clear()
    yield
    factory._get_chat_model_creator.cache_clear()


@pytest.fixture
def built(monkeypatch):
    """The settings that models were built with, without loading any."""
    record = []

    def build(self, **settings):
        record.append(settings)
        made = ChatRapid.__new__(ChatRapid)
        init(made, engine=puppet("Fine."), **{k: v for k, v in settings.items() if k != "model"})
        self.__dict__, self.__pydantic_private__ = made.__dict__, made.__pydantic_private__
        object.__setattr__(self, "__pydantic_fields_set__", made.__pydantic_fields_set__)

    init = ChatRapid.__init__
    monkeypatch.setattr(ChatRapid, "__init__", build)
    return record


def test_by_name(built):
    with pytest.raises(ValueError, match="rapid"):
        factory.init_chat_model("rapid:smollm2-135m-instruct")
    register_provider()
    register_provider()
    model = factory.init_chat_model("rapid:smollm2-135m-instruct", max_tokens=100)
    assert isinstance(model, ChatRapid) and model.max_tokens == 100
    other = factory.init_chat_model("org/name:with-colon", model_provider="rapid")
    assert isinstance(other, ChatRapid)
    assert [each["model"] for each in built] == ["smollm2-135m-instruct", "org/name:with-colon"]


def test_an_agent(built):
    from langchain.agents import create_agent

    register_provider()
    result = create_agent("rapid:smollm2-135m-instruct").invoke({"messages": [("human", "How?")]})
    assert result["messages"][-1].content == "Fine."


def test_configurable(built):
    register_provider()
    model = factory.init_chat_model(configurable_fields=("model", "model_provider", "max_tokens"))
    chosen = {"configurable": {"model": "rapid:smollm2-135m-instruct", "max_tokens": 2}}
    assert model.invoke("How?", chosen).content == "Fi"


def test_a_version_that_keeps_no_table(monkeypatch):
    monkeypatch.delattr(factory, "_BUILTIN_PROVIDERS")
    with pytest.raises(ConfigurationError, match=r"ChatRapid\(model=\.\.\.\)"):
        register_provider()


@pytest.mark.process
@pytest.mark.slow
def test_a_model_by_name():
    """The whole way, with the embedded model."""
    code = (
        "from langchain_rapid import register_provider; register_provider()\n"
        "from langchain.chat_models import init_chat_model\n"
        "m = init_chat_model('rapid:smollm2-135m-instruct', max_tokens=3)\n"
        "print(m.invoke('Hello').usage_metadata['output_tokens'])"
    )
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "3"
