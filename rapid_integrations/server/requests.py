"""The bodies of requests. Unknown fields are refused, as OpenAI does. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rapid_integrations.config import Eta, LawName

Text = Annotated[str, Field(max_length=20_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Stop = str | Annotated[list[str], Field(max_length=32)]


class Body(BaseModel):
    """Base of the bodies: no unknown fields, and no NaN."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class DocumentReference(Body):
    """A document of a request: an uploaded file, or a text with a name."""

    file_id: str | None = Field(default=None, max_length=64, description="the id of an uploaded file")
    text: Text | None = Field(default=None, description="the text itself")
    name: str | None = Field(default=None, max_length=400, description="the name that the models read with the text")


class RapidOptions(Body):
    """RAPID's own fields of a request."""

    documents: list[DocumentReference] = Field(
        default=[], max_length=64, description="documents that the question is about; they are read once"
    )
    context: Text | None = Field(
        default=None,
        description="the retrieved context. If a message contains it, it is found there; otherwise it is a document",
    )
    question: str | None = Field(
        default=None, max_length=20_000, description="what is searched for in the documents; found by itself if missing"
    )
    law: LawName | None = Field(default=None, description="the distribution that the answer follows")
    eta: Eta | None = Field(default=None, description="strength of the shift towards the drafter")
    proposer: str | None = Field(default=None, max_length=100, description="what drafts tokens")
    draft_length: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] | None = Field(
        default=None, description="number of tokens drafted in a round"
    )
    abstain_below: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None,
        description="answer abstain_text if the probability that the documents answer the question is below this",
    )
    abstain_text: Text | None = Field(default=None, description="the answer of abstain_below")
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="arguments of the chat template, in place of the field of the body with this name"
    )
    sources: bool = Field(
        default=True,
        description="whether the answer names the passages that its sentences rest on, or, if none is known, those "
        "that the drafter read",
    )
    statistics: bool = Field(default=False, description="whether the answer carries its statistics")
    trace: bool = Field(default=False, description="whether each piece says where its tokens came from")
    progress: bool = Field(default=False, description="whether a stream also reports the reading of the prompt")
    provisional: bool = Field(
        default=False,
        description="whether a stream also holds the drafter's own answer while the target reads the prompt",
    )


class _Answering(Body):
    """The fields that both endpoints share."""

    model: str = Field(max_length=400)
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = Field(default=None, max_length=1024)
    seed: Whole | None = None
    user: str | None = None
    # Fields of other servers that many clients send.
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    ignore_eos: bool | None = Field(default=None, description="true: the answer has max_tokens, wherever it would end")
    # What vllm-router adds to every request. It changes nothing here, and other values would have to.
    no_stop_trim: Literal[False] | None = None
    skip_special_tokens: Literal[True] | None = None
    return_hidden_states: Literal[False] | None = None
    rapid: RapidOptions | None = None

    @property
    def options(self) -> RapidOptions:
        """RAPID's own fields, or their defaults."""
        return self.rapid or RapidOptions()


class StreamOptions(Body):
    """What a stream holds beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(default=None, description="ignored: nothing is padded")


class Message(BaseModel):
    """A message of a conversation. Further fields are ignored, because clients send back what they have received."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_calls: list[MessageToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: Text | None = Field(
        default=None, description="an earlier answer's thinking, for chat templates that show it to the model"
    )
    reasoning: Text | None = Field(default=None, description="other servers' name for reasoning_content")


class CalledFunction(BaseModel):
    """The function of a tool call, with its arguments as JSON text."""

    name: str
    arguments: str


class MessageToolCall(BaseModel):
    """A tool call of an earlier answer."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class FunctionDeclaration(BaseModel):
    """A function that the model may call."""

    name: str = Field(max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionDeclaration


class ChosenFunction(BaseModel):
    """The name of a function."""

    name: str


class ToolChoice(BaseModel):
    """The one function that the model has to call."""

    type: Literal["function"]
    function: ChosenFunction


class SchemaFormat(BaseModel):
    """A JSON schema that the answer has to satisfy."""

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(
        default=None, alias="schema", description='of "json_object", as llama.cpp and others take it'
    )


class ChatRequest(_Answering):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    # vLLM's and SGLang's name.
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="arguments of the chat template: names that it reads, and JSON values"
    )
    reasoning_effort: str | None = Field(
        default=None, max_length=100, description="given to a chat template that reads this name, else refused"
    )
    # SGLang's name.
    separate_reasoning: bool | None = Field(
        default=None, description="false leaves a model's thinking in the content, in place of reasoning_content"
    )
    # Fields of OpenAI's own service that change no answer here.
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prediction: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    # What vllm-router adds.
    continue_final_message: Literal[False] | None = None
    stream_reasoning: bool | None = None
    include_reasoning: bool | None = None


class CompletionRequest(_Answering):
    """The body of /v1/completions. The prompt is given to the model as it is, without a chat template."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=128)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = Field(default=None, description="only 1 is supported")
    suffix: None = Field(default=None, description="not supported")


class EmbeddingRequest(Body):
    """The body of /v1/embeddings."""

    model: str = Field(max_length=400)
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)] = Field(
        description="a text or several. Token ids are refused: they belong to a tokenizer that the server does not know"
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="if given, the number that the embedding model has"
    )
    user: str | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _texts_only(cls, given: Any) -> Any:
        if isinstance(given, list) and given and isinstance(given[0], (int, list)):
            raise ValueError(
                "token ids were given, and the server reads texts (in LangChain: "
                "OpenAIEmbeddings(check_embedding_ctx_length=False))"
            )
        return given

    @field_validator("input")
    @classmethod
    def _not_empty(cls, given: str | list[str]) -> str | list[str]:
        if "" in ([given] if isinstance(given, str) else given):
            raise ValueError("a text is empty: leave it out")
        return given

    @property
    def texts(self) -> list[str]:
        """The texts."""
        return [self.input] if isinstance(self.input, str) else self.input


for _model in (_Answering, ChatRequest, CompletionRequest, Message):
    _model.model_rebuild()
