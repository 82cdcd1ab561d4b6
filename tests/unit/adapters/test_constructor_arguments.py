"""Arguments under other libraries' names, misspelt ones, objects in the places of names, what callers send along."""

from pathlib import Path

import pytest
import torch
from transformers import TextGenerationPipeline

import langchain_rapid
import llama_index_rapid
from rapid_integrations import (
    CompressionConfig,
    ConfigurationError,
    ModelLoadError,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
)
from rapid_integrations.adapters.constructor_arguments import constructor_settings
from rapid_integrations.adapters.fields import ModelFields, RequestFields
from tests.toys.host_llms import HOSTS, ask, build
from tests.toys.models import byte_tokenizer, tiny_model

OBJECTS = ("engine", "model", "tokenizer", "drafter_model", "drafter_tokenizer")
LLAMA, PLAIN, CHAT = HOSTS


@pytest.fixture(scope="module")
def objects():
    return tiny_model("llama", 0), byte_tokenizer()


@pytest.fixture(scope="module")
def pipeline(objects):
    model, tokenizer = objects
    return TextGenerationPipeline(model=model, tokenizer=tokenizer)


# --- the constructor --------------------------------------------------------------------------------------------------


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_tokens": 7}, {"max_new_tokens": 7}),
        ({"max_completion_tokens": 7}, {"max_new_tokens": 7}),
        ({"num_predict": 7}, {"max_new_tokens": 7}),
        ({"stop_sequences": ["a"]}, {"stop": ("a",)}),
        ({"stop_strings": "a"}, {"stop": ("a",)}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"random_seed": 3}, {"seed": 3}),
        ({"num_speculative_tokens": 3}, {"draft_length": 3}),
        ({"do_sample": False, "temperature": 0.9}, {"temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.3}, {"temperature": 0.3}),
        ({"generate_kwargs": {"temperature": 0.7, "do_sample": True, "top_k": 5}}, {"temperature": 0.7, "top_k": 5}),
        ({"pipeline_kwargs": {"max_new_tokens": 7, "return_full_text": False}}, {"max_new_tokens": 7}),
        ({"additional_kwargs": {"seed": 3}}, {"seed": 3}),
        ({"n": 1, "num_beams": 1, "verbose": False}, {}),
        ({"temperature": None, "max_tokens": None}, {"temperature": 0.0, "max_new_tokens": 256}),
    ],
    ids=lambda value: next(iter(value), "nothing"),
)
def test_other_names_of_settings(host, engine, given, expected):
    llm = host(engine=engine, **given)
    assert {name: getattr(llm, name) for name in expected} == expected


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(
    "given",
    [
        {"model": "NAME"},
        {"model_name": "NAME", "tokenizer_name": "NAME"},
        {"model_id": "NAME", "task": "text-generation", "device": -1},
        {"model_path": "NAME", "model_kwargs": {"torch_dtype": torch.float32}},
        {"target": Path("NAME"), "torch_dtype": "float32", "device": torch.device("cpu")},
    ],
    ids=lambda given: next(iter(given)),
)
def test_other_names_of_what_is_loaded(host, folder, given):
    def named(value):
        if isinstance(value, dict):
            return {key: named(each) for key, each in value.items()}
        return type(value)(folder) if str(value) == "NAME" else value

    given = {name: named(value) for name, value in given.items()}
    llm = build(host, folder, **{"target": None, "dtype": None, **given})
    assert llm.target == str(folder) and llm.rapid_engine.target.name == str(folder)
    assert llm.dtype in ("auto", "float32") and llm.device in ("auto", "cpu")


MISTAKES = {
    "temprature": "did you mean 'temperature'",
    "Temperature": "did you mean 'temperature'",
    "tagret": "did you mean 'target'",
    "maxtokens": "did you mean 'max_new_tokens'",
    "drafter_quantisation": "did you mean 'drafter_quantization'",
    "tokenizer_name": "its own tokenizer",
    "tokenizer_kwargs": "nothing is truncated",
    "is_chat_model": "read from the model",
    "stopping_ids": "stop=",
    "max_length": "max_new_tokens",
    "n_ctx": "read from the model",
    "num_ctx": "read from the model",
    "api_base": "no server",
    "request_timeout": "no server",
    "n_gpu_layers": "device=",
    "load_in_4bit": 'quantization="int4"',
    "quantization_config": "quantization=",
    "chunk_tokens": r"compression=CompressionConfig\(chunk_tokens",
    "llm": "engine=llm.rapid_engine",
    "pipeline": "model=pipeline.model, tokenizer=pipeline.tokenizer",
    "guided_json": "structured=StructuredOutput",
    "cache_folder": "HF_HOME",
    "zzz": "docs/configuration.md",
}


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("name", MISTAKES)
def test_a_name_that_is_none_is_answered_with_the_one_that_was_meant(host, engine, name):
    with pytest.raises(ConfigurationError, match=MISTAKES[name]) as error:
        host(engine=engine, **{name: 3.5})
    assert name in str(error.value) and len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("hosts", "name", "meant"),
    [
        ([LLAMA], "embeddings", "embed_model"),
        ([PLAIN, CHAT], "embed_model", "embeddings"),
        ([LLAMA], "text_splitter", "node_parser"),
        ([PLAIN, CHAT], "node_parser", "text_splitter"),
        ([LLAMA], "streaming", "stream_complete"),
        ([PLAIN, CHAT], "context_window", "read from the model"),
        ([PLAIN, CHAT], "system_prompt", "system message"),
    ],
)
def test_a_name_of_the_other_host(engine, hosts, name, meant):
    for host in hosts:
        with pytest.raises(ConfigurationError, match=meant):
            host(engine=engine, **{name: "x"})


def test_llama_indexs_own_names(engine):
    llm = LLAMA(engine=engine, query_wrapper_prompt="Q: {query_str}", system_prompt="Be brief.", context_window=512)
    assert llm.query_wrapper_prompt.format(query_str="a") == "Q: a"


def test_a_setting_under_two_names(host, engine):
    with pytest.raises(ConfigurationError, match="max_tokens=5 and max_new_tokens=6 are one setting|max_new_tokens=6"):
        host(engine=engine, max_tokens=5, max_new_tokens=6)
    assert host(engine=engine, max_tokens=5, max_new_tokens=5).max_new_tokens == 5
    with pytest.raises(ConfigurationError, match="are one setting, target"):
        host(model="a", target="b")


def test_names_and_objects_in_each_others_places(host, engine, objects, pipeline):
    model, tokenizer = objects
    for given, said in [
        ({"model": "name", "tokenizer": "name"}, "Did you mean target='name'"),
        ({"target": "name", "tokenizer": tokenizer}, "tokenizer goes with model"),
        ({"model": pipeline}, "model=pipeline.model, tokenizer=pipeline.tokenizer"),
        ({"model": tokenizer, "tokenizer": model}, "takes a transformers model"),
        ({"model": model}, "needs tokenizer"),
        ({"model": model, "tokenizer": 3}, "takes a transformers tokenizer"),
        ({"model": model, "tokenizer": tokenizer, "drafter_model": "name"}, "drafter='name'"),
        ({"target": model}, "model objects go to model="),
        ({"engine": "name"}, "target='name'"),
        ({"engine": model}, "takes a RapidEngine, not a LlamaForCausalLM"),
        ({"engine": host(engine=engine)}, "llm.rapid_engine"),
    ]:
        with pytest.raises(ConfigurationError, match=said):
            host(**given)


def test_arguments_without_a_name(host, engine, objects):
    for given, name in ((("some-model",), "target='some-model'"), ((engine,), "engine="), (objects, "model=")):
        with pytest.raises(ConfigurationError, match=f"arguments must be named; did you mean {name}"):
            host(*given)


def test_a_closed_engine_is_not_taken(host, engine):
    engine.close()
    with pytest.raises(Exception, match="the given engine has been closed"):
        host(engine=engine)


def test_every_own_name_is_accepted(host):
    """No alias hides a field, and no field is refused."""
    fields = {**ModelFields.model_fields, **RequestFields.model_fields}
    given = {name: "auto" for name in fields if name not in OBJECTS}
    assert constructor_settings(host, given) == given
    assert constructor_settings(host, {name: None for name in fields}) == {}  # None is the default


# --- a call -----------------------------------------------------------------------------------------------------------

SENT_ALONG = [
    {"extra_headers": {"anthropic-beta": "prompt-caching"}},  # LlamaIndex's DocumentContextExtractor
    {"extra_body": {"chat_template_kwargs": {}}},
    {"extra_query": {"a": "b"}},
    {"user": "somebody"},
    {"stream_usage": True},
    {"stream_options": {"include_usage": True}},
    {"service_tier": "flex", "store": True, "prompt_cache_key": "a"},
    {"n": 1},
    {"logprobs": False, "logit_bias": {}},
    {"timeout": 60.0},
    {"request_timeout": 60.0, "max_retries": 2, "api_key": "k"},
    {"stop": None, "seed": None, "temperature": None},
    {"response_format": {"type": "text"}},
]


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("sent", SENT_ALONG, ids=lambda sent: next(iter(sent)))
def test_what_concerns_the_way_to_a_server_is_dropped(host, engine, sent):
    llm = host(engine=engine, max_new_tokens=4)
    assert ask(llm, **sent) == ask(llm)


@pytest.mark.parametrize("host_", [LLAMA])
def test_metadata_of_a_call(host_, engine):
    llm = host_(engine=engine, max_new_tokens=4)
    assert ask(llm, metadata={"a": 1}, callbacks=[], tags=["a"], config={}) == ask(llm)


def test_settings_of_a_call_under_other_names(host, engine):
    llm = host(engine=engine, max_new_tokens=4)
    for given in (
        {"max_tokens": 2},
        {"num_predict": 2},
        {"max_completion_tokens": 2},
        {"extra_body": {"max_tokens": 2}},
    ):
        assert ask(llm, **given) == ask(llm, max_new_tokens=2) != ask(llm)
    assert ask(llm, extra_body={"max_tokens": 3}, max_tokens=2) == ask(llm, max_tokens=2)  # the call's own
    assert ask(llm, do_sample=False, temperature=3.0) == ask(llm)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": 2}, "one answer to a request"),
        ({"best_of": 3}, "one answer to a request"),
        ({"num_beams": 4}, "one answer to a request"),
        ({"temprature": 1}, "no option 'temprature' for a call: did you mean 'temperature'"),
        ({"target": "other"}, "is chosen when"),
        ({"quantization": "int8"}, "is chosen when"),
        ({"model": "other"}, "other"),
        ({"logprobs": True}, "trace"),
        ({"reasoning_effort": "low"}, "chat_template_kwargs="),
        ({"max_length": 50}, "max_new_tokens"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_call_with_what_cannot_be_done(host, engine, given, said):
    llm = host(engine=engine, max_new_tokens=4)
    with pytest.raises(ConfigurationError, match=said):
        ask(llm, **given)
    assert ask(llm) is not None  # the next request works


async def test_llama_indexs_document_context_extractor(engine):
    """It logs what fails and goes on without: `achat(messages, max_tokens=, extra_headers=)`."""
    from llama_index.core.extractors import DocumentContextExtractor
    from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
    from llama_index.core.storage.docstore import SimpleDocumentStore

    documents = SimpleDocumentStore()
    source = Document(text="the whole document, with a chunk in it", id_="source")
    documents.add_documents([source])
    node = TextNode(text="a chunk", relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="source")})
    extractor = DocumentContextExtractor(
        documents, LLAMA(engine=engine), max_context_length=1000, max_output_tokens=4, num_workers=1
    )
    (found,) = await extractor.aextract([node])
    assert found["context"]


# --- the engine's and the settings' own -------------------------------------------------------------------------------


def test_the_engines_arguments(engine, objects, pipeline):
    model, tokenizer = objects
    for call, said in [
        (lambda: RapidEngine.from_pretrained(model), "from_models"),
        (lambda: RapidEngine.from_pretrained("a", quantisation="int8"), "did you mean 'quantization'"),
        (lambda: RapidEngine.from_pretrained("a", max_new_tokens=4), r"sampling=SamplingParams\(max_new_tokens"),
        (lambda: RapidEngine.from_pretrained("a", chunk_tokens=4), r"CompressionConfig\(chunk_tokens"),
        (lambda: RapidEngine.from_models("a", "b"), "target='a'"),
        (lambda: RapidEngine.from_models(model, "b"), "AutoTokenizer"),
        (lambda: RapidEngine.from_models(pipeline, None), "pipeline.model"),
        (lambda: RapidEngine.from_models(model, tokenizer, sampeling=1), "did you mean 'sampling'"),
        (lambda: RapidEngine("a"), "from_pretrained"),
        (lambda: engine.generate("hello", temperature=1.0), r"sampling=SamplingParams\(temperature"),
        (lambda: SamplingParams(max_tokens=3), "did you mean 'max_new_tokens'"),
        (lambda: SpeculationConfig(gamma=3), "no option 'gamma'; it has: law"),
        (lambda: CompressionConfig(chunk_size=3), "chunk_tokens"),
    ]:
        with pytest.raises(ConfigurationError, match=said):
            call()


def test_a_name_that_leads_nowhere_is_still_an_error_of_loading(host):
    with pytest.raises(ModelLoadError):
        host(model="./no/such/folder")


def test_both_hosts_have_the_same_fields():
    shared = {**ModelFields.model_fields, **RequestFields.model_fields}
    assert set(shared) <= set(llama_index_rapid.RapidLLM.model_fields) & set(langchain_rapid.ChatRapid.model_fields)
