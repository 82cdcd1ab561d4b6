"""Settings changed on a model that is there: assigned, copied with changes, bound, or given with a call."""

import pytest
from langchain_core.runnables import ConfigurableField

from langchain_rapid import ChatRapid, RapidLLM
from rapid_integrations import CompressionConfig, ConfigurationError
from tests.toys.langchain_llms import QUESTION
from tests.toys.langchain_parts import DOCUMENT, Best, Hashed, Only, splitter
from tests.toys.puppet import puppet


def tokens(model, **kwargs):
    """Return how many tokens an answer has, as the engine counted them."""
    found = model.generate_prompt([model._convert_input(QUESTION)], **kwargs).generations[0][0]
    info = found.message.response_metadata if hasattr(found, "message") else found.generation_info
    return info["rapid"]["tokens"]


class TestAssigned:
    @pytest.mark.parametrize("name", ["max_tokens", "max_new_tokens"])
    def test_the_number_of_tokens(self, either, name):
        before = either._get_llm_string() if hasattr(either, "_get_llm_string") else dict(either._identifying_params)
        setattr(either, name, 2)
        assert either.max_tokens == either.max_new_tokens == tokens(either) == 2
        assert either._get_ls_params()["ls_max_tokens"] == 2
        after = either._get_llm_string() if hasattr(either, "_get_llm_string") else dict(either._identifying_params)
        assert before != after

    def test_the_profile_follows(self, chat):
        chat.max_tokens = 600
        assert chat.profile["max_output_tokens"] == 600 and chat.profile["max_input_tokens"] == 8192 - 600

    def test_a_profile_of_the_users_own_stays(self, engine):
        chat = ChatRapid(engine=engine, profile={"max_input_tokens": 100})
        chat.max_tokens = 600
        assert chat.profile == {"max_input_tokens": 100}
        chat.profile = None
        assert chat.profile["max_input_tokens"] == 8192 - 600

    def test_others(self, either):
        either.temperature, either.seed, either.stop_sequences = 0.5, 3, "x"
        assert either.stop == ("x",)
        params = either._get_ls_params()
        assert params["ls_temperature"] == 0.5 and params["ls_stop"] == ["x"]
        either.compression = {"chunk_tokens": 32}
        assert either.compression == CompressionConfig(chunk_tokens=32)
        either.temperature = "0.25"  # as in the constructor
        assert either.temperature == 0.25

    def test_none_is_the_default_as_in_the_constructor(self, either):
        either.max_tokens = 3
        either.max_tokens = None
        assert either.max_tokens == 8  # the engine's

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_tokens", 0),
            ("temperature", -1),
            ("temperature", "warm"),
            ("stop", ("",)),
            ("law", "none"),
            ("compression", 3),
            ("timeout", -1),
            ("retriever", "google"),
            ("text_splitter", "words"),
            ("show_schema", "perhaps"),
            ("temprature", 1),
            ("model_name", "other"),
        ],
    )
    def test_refused_and_nothing_changes(self, either, name, value):
        before = dict(either._identifying_params)
        with pytest.raises(ConfigurationError, match=name if name != "max_tokens" else "max_new_tokens"):
            setattr(either, name, value)
        assert dict(either._identifying_params) == before and tokens(either) == 8

    def test_of_a_plain_llm(self, llm):
        with pytest.raises(ConfigurationError, match="apply_chat_template"):
            llm.apply_chat_template = "sometimes"
        llm.apply_chat_template = False
        assert llm.apply_chat_template is False

    @pytest.mark.parametrize(
        ("name", "value"), [("target", "other"), ("dtype", "float16"), ("drafter", "other"), ("engine", None)]
    )
    def test_what_is_loaded_stays(self, either, name, value):
        with pytest.raises(ConfigurationError, match="build another"):
            setattr(either, name, value)

    def test_langchains_own(self, either):
        either.cache, either.tags, either.verbose = False, ["a"], True
        assert either.tags == ["a"] and tokens(either) == 8

    def test_parts_of_retrieval(self, either, seen, caplog):
        caplog.set_level("ERROR")  # the splitter tells of paragraphs longer than its chunk_size
        prompt = f"{DOCUMENT}\n{QUESTION}"
        either.invoke(prompt, rapid_context=DOCUMENT, rapid_query=QUESTION)
        key = dict(either._identifying_params)
        either.embeddings, either.text_splitter = Hashed(), splitter()
        either.invoke(prompt, rapid_context=DOCUMENT, rapid_query=QUESTION)
        assert either.embeddings.texts and dict(either._identifying_params) != key
        either.retriever, either.document_compressor = Best(), Only()
        either.retriever = None
        assert [prepared.compression.source for prepared in seen] == ["embedder", "embedder"]


class TestCopies:
    def test_with_changes(self, either):
        copied = either.model_copy(update={"max_tokens": 2, "temperature": 0.0})
        assert (tokens(copied), tokens(either)) == (2, 8)
        assert copied.rapid_engine is either.rapid_engine
        if isinstance(either, ChatRapid):
            assert copied.profile["max_output_tokens"] == 2 and either.profile["max_output_tokens"] == 8

    @pytest.mark.parametrize("update", [{"max_tokens": 0}, {"temprature": 1}, {"target": "other"}])
    def test_refused(self, either, update):
        with pytest.raises(ConfigurationError):
            either.model_copy(update=update)
        assert tokens(either) == 8

    def test_parts_are_the_copys_own(self, either):
        copied = either.model_copy(update={"retriever": Best()})
        assert copied._compressor is not either._compressor and either.retriever is None
        assert dict(copied._identifying_params) != dict(either._identifying_params)


class TestOfACall:
    def test_bound(self, either):
        assert len(getattr(either.bind(max_tokens=2).invoke(QUESTION), "content", "xx")) <= 8
        assert tokens(either, max_tokens=2) == 2

    @pytest.mark.parametrize(
        ("name", "value"), [("timeout", (3, 5)), ("timeout", 0), ("show_schema", "perhaps"), ("return_retrieved", 3)]
    )
    def test_this_packages_own_are_checked_like_fields(self, either, name, value):
        with pytest.raises(ConfigurationError, match=name):
            either.invoke(QUESTION, **{name: value})
        assert tokens(either, **{name: None}) == 8  # None is no override

    def test_a_plain_llms_own(self, llm):
        with pytest.raises(ConfigurationError, match="apply_chat_template"):
            llm.invoke(QUESTION, apply_chat_template="sometimes")

    @pytest.mark.parametrize("cls", [RapidLLM, ChatRapid])
    @pytest.mark.parametrize("field", ["max_tokens", "max_new_tokens"])
    def test_configurable(self, cls, field):
        """Under either name; the fields of the model are what LangChain reads of it."""
        model = cls(engine=puppet("x" * 50))
        configurable = model.configurable_fields(**{field: ConfigurableField(id="tokens")})
        assert set(configurable.fields) == {"max_new_tokens"}
        assert configurable.config_specs[0].id == "tokens"
