"""The LLM and the chat model by themselves: settings, identity, callbacks, counts, errors."""

import math

import pytest
from langchain_core import exceptions as langchain_errors
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage, SystemMessage, trim_messages
from langchain_core.prompts import PromptTemplate

from langchain_rapid import ChatRapid, ContextOverflowError, RapidLLM
from rapid_integrations import CompressionConfig, ConfigurationError, ModelLoadError, SamplingParams, errors
from tests.toys.embedder import HashEmbedder
from tests.toys.held_passes import eventually
from tests.toys.langchain_llms import DOCUMENT, QUESTION, as_user, make_engine
from tests.toys.models import BOS, BOS_ID, CHATML, byte_tokenizer, tiny_model
from tests.toys.readers import Readers

CLASSES = (RapidLLM, ChatRapid)


def answered(either, prompt, **kwargs):
    """Return text and metadata of an answer of either model."""
    found = either.generate_prompt([either._convert_input(prompt)], **kwargs).generations[0][0]
    return found.text, found.message.response_metadata if hasattr(found, "message") else found.generation_info


def prompt_tokens(model):
    found = model.generate_prompt([model._convert_input("hello")]).generations[0][0]
    if isinstance(model, ChatRapid):
        return found.message.usage_metadata["input_tokens"]
    return found.generation_info["token_usage"]["prompt_tokens"]


class Calls(BaseCallbackHandler):
    def __init__(self):
        self.starts, self.tokens, self.ends, self.errors = [], [], [], []

    def on_llm_start(self, serialized, prompts, **kwargs):
        self.starts += prompts

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.starts += messages

    def on_llm_new_token(self, token, **kwargs):
        self.tokens.append(token)

    def on_llm_end(self, response, **kwargs):
        self.ends.append(response)

    def on_llm_error(self, error, **kwargs):
        self.errors.append(error)


class TestSettings:
    @pytest.mark.parametrize("cls", CLASSES)
    def test_langchains_own_names(self, engine, cls):
        model = cls(engine=engine, max_tokens=5, stop_sequences=["x"], timeout=60, max_retries=2, api_key="sk-secret")
        assert model.max_new_tokens == model.max_tokens == 5 and model.stop == ("x",)
        assert "sk-secret" not in repr(model)

    @pytest.mark.parametrize("cls", CLASSES)
    def test_none_is_the_default(self, engine, cls):
        model = cls(engine=engine, temperature=None, max_tokens=None, stop=None)
        assert (model.temperature, model.max_new_tokens, model.stop) == (0.0, 8, ())

    @pytest.mark.parametrize("cls", CLASSES)
    def test_refused(self, engine, cls):
        with pytest.raises(ConfigurationError, match="no option 'temprature': did you mean 'temperature'"):
            cls(engine=engine, temprature=1)
        with pytest.raises(ConfigurationError, match="temperature=-1"):
            cls(engine=engine, temperature=-1)
        with pytest.raises(ConfigurationError, match="are one setting"):
            cls(engine=engine, max_tokens=5, max_new_tokens=6)
        with pytest.raises(ConfigurationError, match="is loaded already"):
            cls(engine=engine, target="other")
        with pytest.raises(ConfigurationError, match="needs tokenizer"):
            cls(model=tiny_model("llama", 0))
        with pytest.raises(ModelLoadError):
            cls(model="no/such-model-anywhere.gguf")

    @pytest.mark.parametrize("cls", CLASSES)
    def test_langchains_own_fields(self, engine, cls):
        calls = Calls()
        model = cls(engine=engine, name="mine", tags=["a"], metadata={"b": 1}, callbacks=[calls], verbose=False)
        model.invoke("hello")
        assert len(calls.starts) == len(calls.ends) == 1 and model.get_name() == "mine"
        hosts_own = FakeListLLM(responses=[""], metadata={"b": 1}).metadata  # later versions add what they are
        assert model.metadata["b"] == 1 and model.metadata.keys() == hosts_own.keys()

    def test_model_objects(self):
        model = ChatRapid(model=tiny_model("llama", 0), tokenizer=byte_tokenizer(), embeddings=HashEmbedder())
        assert model.invoke("hello", max_tokens=2).usage_metadata["output_tokens"] == 2

    def test_a_drafter_is_a_field(self):
        parts = {"model": tiny_model("llama", 0), "tokenizer": byte_tokenizer(), "embeddings": HashEmbedder()}
        stats = RapidLLM(**parts, drafter_model=tiny_model("llama", 1, num_hidden_layers=3)).generate(["hello"])
        rapid = stats.generations[0][0].generation_info["rapid"]
        assert rapid["law"] == "augmented" and rapid["eta"] == "auto" and rapid["drafted_tokens"] > 0

    def test_eta_is_a_number_or_auto_in_the_model_and_in_a_call(self):
        parts = {"model": tiny_model("llama", 0), "tokenizer": byte_tokenizer(), "embeddings": HashEmbedder()}
        drafter = tiny_model("llama", 1, num_hidden_layers=3)
        model = ChatRapid(**parts, drafter_model=drafter, eta="auto", max_new_tokens=2)
        assert model.invoke("hello").response_metadata["rapid"]["eta"] == "auto"
        assert model.invoke("hello", eta=3).response_metadata["rapid"]["eta"] == 3
        with pytest.raises(ConfigurationError, match="eta='strong'"):
            model.invoke("hello", eta="strong")

    def test_one_bos(self):
        """A chat template writes the BOS token itself, and a tokenizer that adds one must not add another."""
        tokenizer = byte_tokenizer(chat_template=BOS + CHATML, add_bos=True)
        parts = {"model": tiny_model("llama", 0), "tokenizer": tokenizer, "embeddings": HashEmbedder()}
        for model in (ChatRapid(**parts, max_tokens=2), RapidLLM(**parts, max_tokens=2)):
            text = model.rapid_engine.explain("hello").target.text
            assert text.startswith(BOS)
            read = tokenizer(text, add_special_tokens=False).input_ids
            assert prompt_tokens(model) == len(read) and read.count(BOS_ID) == 1
        plain = RapidLLM(**parts, max_tokens=2, apply_chat_template=False)
        assert prompt_tokens(plain) == 1 + len("hello")

    def test_a_model_without_a_template_reads_no_messages(self):
        base = make_engine(chat_template=None)
        with pytest.raises(ConfigurationError, match="no chat template.*RapidLLM"):
            ChatRapid(engine=base)
        assert isinstance(RapidLLM(engine=base).invoke("hello"), str)

    def test_of_a_call(self, either):
        whole, info = answered(either, QUESTION)
        assert info["finish_reason"] == "length" and info["rapid"]["tokens"] == 8
        assert answered(either, QUESTION, max_tokens=3)[1]["rapid"]["tokens"] == 3
        assert answered(either, DOCUMENT, law="target", proposer="none")[1]["rapid"]["proposer"] == "none"
        a, b = (answered(either, QUESTION, temperature=2.0, seed=seed, law="target")[0] for seed in (1, 1))
        assert a == b
        with pytest.raises(ConfigurationError, match="no option 'temprature' for a call"):
            either.invoke(QUESTION, temprature=1)
        with pytest.raises(ConfigurationError, match="build a second"):
            either.invoke(QUESTION, model="another")
        assert answered(either, QUESTION, model=either.model_name)[0] == whole

    def test_stop(self, engine, either):
        whole, _ = answered(either, QUESTION)
        mark = next(character for character in whole if character != "\ufffd")
        text, info = answered(either, QUESTION, stop=[mark])
        assert text == whole[: whole.index(mark)] and info["finish_reason"] == "stop"
        built = type(either)(engine=engine, stop=[mark])
        assert answered(built, QUESTION)[0] == text
        assert answered(built, QUESTION, stop=[])[0] == whole
        bound = either.bind(stop=[mark]).invoke(QUESTION)
        assert getattr(bound, "content", bound) == text
        streamed = list(either.stream(QUESTION, stop=[mark]))
        assert "".join(getattr(piece, "content", piece) for piece in streamed) == text

    def test_the_chat_template(self, llm, seen):
        llm.invoke("hello")
        llm.invoke("hello", apply_chat_template=False)
        assert [prepared.target.text for prepared in seen] == [as_user("hello"), "hello"]


class TestIdentity:
    def test_every_setting_counts(self, engine):
        base = ChatRapid(engine=engine)
        variants = {
            "temperature": 0.5,
            "top_k": 3,
            "top_p": 0.5,
            "min_p": 0.1,
            "repetition_penalty": 1.5,
            "frequency_penalty": 0.5,
            "presence_penalty": 0.5,
            "max_new_tokens": 9,
            "stop": ("x",),
            "seed": 3,
            "law": "target",
            "eta": 3.0,
            "tail_rule": "restore",
            "tail_alpha": 0.5,
            "proposer": "none",
            "draft_length": 3,
            "max_draft_length": 5,
            "compression": CompressionConfig(chunk_tokens=32),
            "use_templates": False,
        }
        assert base.model_copy()._get_llm_string() == base._get_llm_string()
        keys = {base._get_llm_string()}
        for name, value in variants.items():
            keys.add(base.model_copy(update={name: value})._get_llm_string())
        assert len(keys) == 1 + len(variants)

    def test_other_models_with_one_name(self):
        models = [
            RapidLLM(model=tiny_model("llama", seed), tokenizer=byte_tokenizer(), embeddings=HashEmbedder())
            for seed in (0, 1)
        ]
        assert models[0].model_name == models[1].model_name
        cache = InMemoryCache()
        texts = []
        for model in models:
            model.cache = cache
            texts.append(model.invoke("hello", max_tokens=4))
        assert texts[0] != texts[1]

    @pytest.mark.parametrize("cls", CLASSES)
    def test_cached_answers(self, engine, cls, seen):
        model = cls(engine=engine, cache=InMemoryCache())
        first = model.invoke(QUESTION)
        again = model.invoke(QUESTION)
        assert len(seen) == 1
        assert getattr(again, "content", again) == getattr(first, "content", first)
        model.invoke(QUESTION, max_tokens=2)  # another setting, another answer
        model.bind(max_tokens=3).invoke(QUESTION)
        model.invoke(QUESTION, rapid_query="what?")
        assert len(seen) == 4
        model.invoke(QUESTION, max_tokens=2)
        assert len(seen) == 4

    @pytest.mark.parametrize("cls", CLASSES)
    async def test_cached_answers_of_async_forms(self, engine, cls, seen):
        model = cls(engine=engine, cache=InMemoryCache())
        await model.ainvoke(QUESTION)
        await model.ainvoke(QUESTION)
        await model.ainvoke(QUESTION, max_tokens=2)
        assert len(seen) == 2


class TestCallbacks:
    def test_per_prompt(self, llm):
        calls = [Calls(), Calls()]
        llm.batch(["one", "two"], [{"callbacks": [each]} for each in calls])
        assert [each.starts for each in calls] == [["one"], ["two"]]
        assert all(len(each.ends) == 1 for each in calls)

    def test_tokens_of_a_stream(self, either):
        calls = Calls()
        whole = answered(either, QUESTION)[0]
        list(either.stream(QUESTION, {"callbacks": [calls]}))
        assert "".join(calls.tokens) == whole and len(calls.ends) == 1

    @pytest.mark.parametrize("cls", CLASSES)
    async def test_tokens_of_invoke_where_streaming_is_on(self, engine, cls):
        model = cls(engine=engine, streaming=True)
        for forms in ("sync", "async"):
            calls = Calls()
            if forms == "sync":
                answer = model.invoke(QUESTION, {"callbacks": [calls]})
            else:
                answer = await model.ainvoke(QUESTION, {"callbacks": [calls]})
            assert "".join(calls.tokens) == getattr(answer, "content", answer) and len(calls.tokens) > 1

    def test_errors(self, either):
        calls = Calls()
        with pytest.raises(errors.PromptError):
            either.invoke("", {"callbacks": [calls]})
        assert len(calls.errors) == 1


class TestCounts:
    def test_tokens_are_the_targets(self, either, engine):
        assert either.get_token_ids("abc") == engine.vocabulary.encode("abc")
        assert either.get_num_tokens("abcd") == 4

    def test_messages(self, chat, seen):
        messages = [SystemMessage("be brief"), HumanMessage(QUESTION)]
        counted = chat.get_num_tokens_from_messages(messages)
        assert counted == chat.invoke(messages).usage_metadata["input_tokens"] == len(seen[0].target_ids)

        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        told = chat.bind_tools([add]).invoke(messages).usage_metadata["input_tokens"]
        assert chat.get_num_tokens_from_messages(messages, tools=[add]) == told > counted

    def test_trimming(self, chat):
        messages = [SystemMessage("be brief"), *(HumanMessage(f"{i} {QUESTION}") for i in range(9))]
        kept = trim_messages(messages, max_tokens=250, token_counter=chat, strategy="last", include_system=True)
        assert 1 < len(kept) < 10 and chat.get_num_tokens_from_messages(kept) <= 250

    def test_usage(self, llm):
        result = llm.generate(["one", "two"])
        infos = [generation[0].generation_info for generation in result.generations]
        assert result.llm_output["token_usage"]["completion_tokens"] == 16
        assert [info["token_usage"]["total_tokens"] for info in infos] == [
            info["token_usage"]["prompt_tokens"] + 8 for info in infos
        ]


class TestErrors:
    @pytest.mark.parametrize("form", ["invoke", "stream"])
    def test_context_overflow_is_langchains(self, either, form):
        with pytest.raises(
            langchain_errors.ContextOverflowError, check=lambda error: error.context_window == 8192
        ) as raised:
            list(getattr(either, form)("x" * 9000))
        assert isinstance(raised.value, ContextOverflowError) and isinstance(raised.value, errors.ContextOverflowError)
        assert raised.value.code == errors.ContextOverflowError.code == "context_overflow"
        assert raised.value.prompt_tokens > 9000

    async def test_context_overflow_of_async_forms(self, either):
        with pytest.raises(langchain_errors.ContextOverflowError):
            await either.ainvoke("x" * 9000)
        with pytest.raises(langchain_errors.ContextOverflowError):
            async for _ in either.astream("x" * 9000):
                pass

    @pytest.mark.parametrize("cls", CLASSES)
    async def test_timeout(self, engine, cls):
        model = cls(engine=engine, timeout=1e-6)
        with pytest.raises(TimeoutError, match="timeout=1e-06 seconds"):
            model.invoke(QUESTION)
        with pytest.raises(TimeoutError):
            await model.ainvoke(QUESTION)
        assert answered(model, QUESTION, timeout=60)[1]["rapid"]["tokens"] == 8


class TestProfile:
    def test_read_from_the_model(self, chat):
        assert chat.profile["max_input_tokens"] == 8192 - 8
        assert chat.profile["tool_calling"] and not chat.profile["image_inputs"]
        base = ChatRapid(engine=make_engine(chat_template=as_template()))
        assert not base.profile["tool_calling"] and base.profile["structured_output"]

    def test_tracing(self, engine):
        model = ChatRapid(engine=engine, temperature=0.5, stop=["x"])
        params = model._get_ls_params()
        assert params == {
            "ls_provider": "rapid",
            "ls_model_type": "chat",
            "ls_model_name": model.model_name,
            "ls_temperature": 0.5,
            "ls_max_tokens": 8,
            "ls_stop": ["x"],
        }


class TestStatistics:
    def test_what_an_answer_carries(self, either):
        template = f"Read this.\n{DOCUMENT}\n{QUESTION}"
        _, info = answered(either, template, rapid_context=DOCUMENT, rapid_query=QUESTION, draft_length=2)
        rapid = info["rapid"]
        assert info["model_name"] == either.model_name and rapid["law"] == "augmented" and rapid["drafted_tokens"]
        assert 0 <= rapid["acceptance_rate"] <= 1 and math.isfinite(rapid["decode_tps"])
        assert rapid["drafter_prompt_tokens"] < len(template)
        places = [DOCUMENT[chunk["start"] : chunk["end"]] for chunk in rapid["retrieved"]]
        assert places and not any("text" in chunk for chunk in rapid["retrieved"])
        told = {"rapid_context": DOCUMENT, "rapid_query": QUESTION, "return_retrieved": True}
        _, info = answered(either, template, **told)
        assert [chunk["text"] for chunk in info["rapid"]["retrieved"]] == places

    def test_a_stream_carries_the_same_once(self, chat):
        chat.invoke(QUESTION)  # so that both of the following find the prompt in the cache, whichever test came first
        pieces = list(chat.stream(QUESTION))
        whole = chat.invoke(QUESTION)
        assert [piece.usage_metadata for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].usage_metadata == whole.usage_metadata and pieces[-1].chunk_position == "last"
        total = pieces[0]
        for piece in pieces[1:]:
            total += piece
        assert total.content == whole.content
        assert total.response_metadata["rapid"]["tokens"] == 8 == whole.response_metadata["rapid"]["tokens"]


class TestBatches:
    def test_as_single_calls(self, either):
        prompts = [f"{DOCUMENT}\nquestion {i}?" for i in range(3)]
        alone = [either.invoke(prompt) for prompt in prompts]
        together = either.batch(prompts)
        assert [getattr(a, "content", a) for a in together] == [getattr(a, "content", a) for a in alone]

    @pytest.mark.parametrize("cls", CLASSES)
    def test_a_shared_document_is_prefilled_once(self, cls):
        model = cls(engine=make_engine(sampling=SamplingParams(max_new_tokens=4)))
        calls = Calls()
        prompts = [f"{DOCUMENT}\nquestion {i}?" for i in range(3)]
        model.batch(prompts, {"callbacks": [calls]})
        found = [end.generations[0][0] for end in calls.ends]
        infos = [g.message.response_metadata if hasattr(g, "message") else g.generation_info for g in found]
        cached = [info["rapid"]["cached_prompt_tokens"] for info in infos]
        first, *others = sorted(cached)  # whichever begins first reads for all
        assert first == 0 and min(others) >= len(DOCUMENT)
        if cls is ChatRapid:
            details = [found[i].message.usage_metadata["input_token_details"] for i in range(3)]
            assert [each["cache_read"] for each in details] == cached

    @pytest.mark.in_turn(2)
    @pytest.mark.parametrize("cls", CLASSES)
    @pytest.mark.parametrize("form", ["batch", "abatch", "generate", "chain"])
    async def test_passes_are_shared_without_a_setting(self, cls, form, monkeypatch):
        engine = make_engine(sampling=SamplingParams(max_new_tokens=24))
        model = cls(engine=engine)
        prompts = [f"{DOCUMENT}\nquestion {i}?" for i in range(4)]
        alone = [getattr(answer, "content", answer) for answer in map(model.invoke, prompts)]
        engine.clear_texts()  # or the same answers would be copied, in few passes
        with monkeypatch.context() as patched:
            readers = Readers(engine, patched)
            readers.wait_for(4)
            if form == "abatch":
                together = await model.abatch(prompts)
            elif form == "chain":
                together = (PromptTemplate.from_template("{text}") | model).batch([{"text": each} for each in prompts])
            elif form == "batch":
                together = model.batch(prompts)
            elif cls is RapidLLM:
                together = [each[0].text for each in model.generate(prompts).generations]
            else:
                found = await model.agenerate([[HumanMessage(each)] for each in prompts])
                together = [each[0].text for each in found.generations]
        assert [getattr(answer, "content", answer) for answer in together] == alone
        assert max(readers.requests) > 1

    @pytest.mark.parametrize("cls", CLASSES)
    def test_max_concurrency_limits_it(self, cls, monkeypatch):
        engine = make_engine(sampling=SamplingParams(max_new_tokens=8))
        readers = Readers(engine, monkeypatch)
        cls(engine=engine).batch([f"{DOCUMENT}\nquestion {i}?" for i in range(3)], {"max_concurrency": 1})
        assert max(readers.requests) == 1

    async def test_an_error_of_one_prompt_is_that_of_the_call(self, engine):
        model = RapidLLM(engine=engine)
        with pytest.raises(errors.PromptError):
            model.generate(["one", "", "three"])
        with pytest.raises(errors.PromptError):
            await model.agenerate(["one", "", "three"])
        await eventually(lambda: not engine.running_requests)  # what was cancelled ends after the present pass
        outcomes = model.batch(["one", "", "three"], return_exceptions=True)
        assert [isinstance(each, errors.PromptError) for each in outcomes] == [False, True, False]


def as_template():
    """A chat template without tools."""
    return CHATML
