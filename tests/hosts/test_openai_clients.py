"""The clients that people use with OpenAI's API, against a server on loopback over a model that may call tools."""

import gc
import json

import pytest

from rapid_integrations.config import SamplingParams
from rapid_integrations.server.settings import ServerSettings
from tests.toys.served import running, tiny_engine
from tests.toys.tool_callers import SCHEMAS, TOOLS, tokenizer_of

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "count": {"type": "integer", "minimum": 0, "maximum": 50}},
    "required": ["sure", "count"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def what_clients_leave_open():
    """Collect the sockets of clients that have no end of their own here, not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from rapid_integrations.server.app import create_app

    settings = ServerSettings(files_dir=tmp_path_factory.mktemp("files"), model_name="tiny")
    with tiny_engine(tokenizer=tokenizer_of("qwen2.5", True), sampling=SamplingParams(max_new_tokens=60)) as engine:
        with running(create_app(engine, settings)) as found:
            yield f"{found}/v1"


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as made:
        yield made


# --- the openai package -----------------------------------------------------------------------------------------------


def test_chat_and_stream(client):
    whole = client.chat.completions.create(model="tiny", messages=HELLO)
    stream = client.chat.completions.create(
        model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens and 0 < whole.usage.completion_tokens <= 60
    assert client.completions.create(model="tiny", prompt="Hello", max_tokens=3).choices[0].text


async def test_the_asynchronous_client(address):
    async with openai.AsyncOpenAI(base_url=address, api_key="none") as client:
        stream = await client.chat.completions.create(model="tiny", messages=HELLO, stream=True, n=2)
        indices = {choice.index async for chunk in stream for choice in chunk.choices}
    assert indices == {0, 1}


def test_models_and_files(client):
    assert [model.id for model in client.models.list()] == ["tiny", "hash"]
    assert client.models.retrieve("tiny").owned_by == "rapid-integrations"
    made = client.files.create(file=("a.txt", b"The quarry closed in 1931."), purpose="assistants")
    assert [file.id for file in client.files.list()] == [made.id]
    assert client.files.content(made.id).read() == b"The quarry closed in 1931."
    assert client.files.wait_for_processing(made.id, poll_interval=0.05).status == "processed"
    assert client.files.delete(made.id).deleted


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    options = {"model": "tiny", "messages": HELLO, "tools": TOOLS[:2], "max_tokens": 300}
    named = {"type": "function", "function": {"name": "add"}}
    if stream:
        with client.chat.completions.stream(**options, tool_choice=named) as running_stream:
            for _ in running_stream:
                pass
            answer = running_stream.get_final_completion()
    else:
        answer = client.chat.completions.create(**options, tool_choice=named)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    for call in choice.message.tool_calls:
        assert call.function.name == "add" and call.id
        assert set(json.loads(call.function.arguments)) == {"a", "b"}
    asked = {"role": "assistant", "tool_calls": [call.model_dump() for call in choice.message.tool_calls]}
    results = [{"role": "tool", "tool_call_id": call.id, "content": "7"} for call in choice.message.tool_calls]
    again = client.chat.completions.create(
        model="tiny", messages=[*HELLO, asked, *results], tools=TOOLS, tool_choice="none"
    )
    assert again.choices[0].message.tool_calls is None


def test_a_schema_is_kept_to(client):
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model="tiny", messages=HELLO, response_format=wanted, max_tokens=200)
    found = json.loads(answer.choices[0].message.content)
    assert isinstance(found["sure"], bool) and 0 <= found["count"] <= 50
    missing = {"type": "json_schema", "json_schema": {"name": "answer"}}
    with pytest.raises(openai.BadRequestError, match="json_schema.schema"):
        client.chat.completions.create(model="tiny", messages=HELLO, response_format=missing)


def test_a_schema_of_json_mode_is_kept_to(client):
    wanted = {"type": "json_object", "schema": SCHEMA}  # llama.cpp's and other servers' form
    answer = client.chat.completions.create(model="tiny", messages=HELLO, response_format=wanted, max_tokens=200)
    assert set(json.loads(answer.choices[0].message.content)) == {"sure", "count"}


def test_log_probabilities_are_the_laws(client):
    answer = client.chat.completions.create(
        model="tiny", messages=HELLO, logprobs=True, top_logprobs=20, max_tokens=5, temperature=0
    )
    for entry in answer.choices[0].logprobs.content:
        best = [each.logprob for each in entry.top_logprobs]
        assert len(best) == 20 and best == sorted(best, reverse=True)
        assert entry.logprob == best[0] <= 0  # greedy: the most probable token of the law
    texts = client.completions.create(model="tiny", prompt="Hello", logprobs=3, max_tokens=5).choices[0].logprobs
    assert len(texts.tokens) == len(texts.token_logprobs) == len(texts.text_offset) == len(texts.top_logprobs)


def test_a_bias_makes_a_token_certain_or_impossible(client):
    def said(**options):
        answer = client.chat.completions.create(
            model="tiny", messages=HELLO, logprobs=True, max_tokens=5, temperature=0, **options
        )
        return answer.choices[0].message.content, answer.choices[0].logprobs.content

    token = str(tokenizer_of("qwen2.5", True).convert_tokens_to_ids("A"))
    text, tokens = said(logit_bias={token: 100})
    assert text == "AAAAA" and all(each.logprob > -1e-3 for each in tokens)
    assert "A" not in said(logit_bias={token: -100})[0]
    with pytest.raises(openai.BadRequestError, match="give token ids"):
        said(logit_bias={"a": 1})
    with pytest.raises(openai.BadRequestError, match="names the token 900,000"):
        said(logit_bias={"900000": 1})


def test_errors_are_the_classes_that_the_client_has_for_them(client, address):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="other", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=10**6)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="Unrecognized request argument supplied: foo"):
        client.chat.completions.create(model="tiny", messages=HELLO, extra_body={"foo": 1})
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve("file-0")


def test_embeddings(client, address):
    found = client.embeddings.create(model="hash", input=["a red fox", "a red fox", "snow"])  # it asks for base64
    first, same, other = (each.embedding for each in found.data)
    assert first == same != other and len(first) == 64 and found.usage.prompt_tokens > 0
    langchain_openai = pytest.importorskip("langchain_openai")
    lent = langchain_openai.OpenAIEmbeddings(
        base_url=address, api_key="none", model="hash", check_embedding_ctx_length=False
    )
    assert lent.embed_documents(["a red fox", "snow"]) == [pytest.approx(first), pytest.approx(other)]


# --- LangChain and LlamaIndex -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_chat_openai(address):
    from pydantic import BaseModel, Field

    langchain_openai = pytest.importorskip("langchain_openai")

    class Answer(BaseModel):
        """An answer."""

        sure: bool
        count: int = Field(ge=0, le=50)

    llm = langchain_openai.ChatOpenAI(base_url=address, api_key="none", model="tiny", max_tokens=200, temperature=0)
    whole = llm.invoke("Hello")
    assert "".join(piece.content for piece in llm.stream("Hello")) == whole.content
    assert whole.usage_metadata["output_tokens"] > 0
    assert isinstance(llm.with_structured_output(Answer, method="json_schema").invoke("Hello"), Answer)
    called = llm.bind_tools(TOOLS[:2], tool_choice="add").invoke("Hello")
    assert called.tool_calls and called.tool_calls[0]["name"] == "add"
    logged = llm.bind(logprobs=True, top_logprobs=2).invoke("Hello")
    assert logged.response_metadata["logprobs"]["content"]
    with pytest.raises(openai.NotFoundError):
        langchain_openai.ChatOpenAI(base_url=address, api_key="none", model="other").invoke("Hello")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.warnings.PydanticDeprecatedSince20")
async def test_openai_like(address):
    pytest.importorskip("llama_index.llms.openai_like")
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    options = {"api_base": address, "api_key": "none", "model": "tiny", "max_tokens": 20, "temperature": 0}
    llm = OpenAILike(**options, is_chat_model=True, is_function_calling_model=True)
    messages = [ChatMessage(role="user", content="Hello")]
    whole = llm.chat(messages).message.content
    assert "".join(piece.delta or "" for piece in llm.stream_chat(messages)) == whole
    assert (await llm.achat(messages)).message.content == whole
    plain = OpenAILike(**options, is_chat_model=False)
    text = plain.complete("Hello").text
    assert "".join(piece.delta or "" for piece in plain.stream_complete("Hello")) == text


def test_the_schemas_of_the_tools_are_those_that_are_checked():
    assert set(SCHEMAS) >= {"add", "get_weather"}
