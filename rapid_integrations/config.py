"""The settings of a request: small frozen models that refuse unknown keys. Imports no torch."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rapid_integrations.errors import ConfigurationError

TailRule = Literal["mask", "restore"]
LawName = Literal["auto", "target", "augmented", "paper", "lenient"]

Eta: TypeAlias = Annotated[float, Field(ge=0.0, le=1000.0, allow_inf_nan=False)] | Literal["auto", "nearest"]
"""Strength of the knowledge transfer from drafter to target; a name chooses it at each position."""

Quantization: TypeAlias = Literal["int8", "int4"]
"""How the weights of a model are stored."""

KVDtype: TypeAlias = Literal["int8"]
"""How keys and values are stored, if not in the model's dtype."""

SparsePrefill: TypeAlias = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
"""The share of a block's estimated attention that a sparse prefill reads."""

DEFAULT_TARGET = "smollm2-135m-instruct"
DEFAULT_EMBEDDER = "all-minilm-l6-v2"

PAPER_DRAFT_LENGTH = 10  # gamma in arXiv 2502.20330, section 4


def home() -> Path:
    """Return the folder for downloads and compiled code: $RAPID_HOME, or the user's cache folder. It may not exist."""
    given = os.environ.get("RAPID_HOME")
    root = Path(given).expanduser() if given else platformdirs.user_cache_path("rapid-integrations")
    return root.absolute()


class Settings(BaseModel):
    """Base of the settings: frozen, no unknown keys, and errors from this package's own tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(type(self), error), code=kind_of(error)) from None


def kind_of(error: ValidationError) -> str:
    """Return the finer code of what pydantic found: the names come first, since a wrong name has no right value."""
    names = any(each["type"] == "extra_forbidden" for each in error.errors())
    return "unknown_name" if names else "wrong_value"


def explain_validation_error(settings: type[BaseModel], error: ValidationError) -> str:
    """Return one sentence for each invalid field: the value and the rule, or for an unknown name the likely one."""
    rules: dict[str, list[str]] = {}
    unknown: list[str] = []
    for item in error.errors():
        field = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            unknown.append(unknown_name(settings.__name__, field, settings.model_fields, SETTING_ALIASES))
        else:
            given = f"{settings.__name__}.{field}={item['input']!r}" if field else settings.__name__
            rules.setdefault(given, []).append(item["msg"])
    return "; ".join([*unknown, *(f"{given}: {', or '.join(messages)}" for given, messages in rules.items())])


class StructuredOutput(Settings):
    """The required form of an answer, enforced token by token. Give exactly one of the first three fields.

    - `json_schema`: a JSON schema; the answer is JSON that satisfies it. White space is bounded.
    - `regex`: a regular expression (Rust's syntax: no look-around) that the whole answer matches.
    - `grammar`: a context-free grammar in Lark's syntax as llguidance reads it, with a rule `start`.
    - `checked`: whether a complete answer is checked against the parts of its JSON schema that a grammar cannot express
      (`not`, `uniqueItems`). A failed check raises IncompleteOutputError.

    An answer that ends with finish_reason "eos" is complete. One that `max_new_tokens` or a stop string cuts is not.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    checked: bool = True

    @model_validator(mode="after")
    def _exactly_one_is_given(self) -> StructuredOutput:
        given = [name for name in ("json_schema", "regex", "grammar") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of json_schema, regex and grammar; given: {', '.join(given) or 'none'}")
        return self


ABSTENTION = "The documents do not say."
"""What is answered by default if the documents do not seem to answer the question."""


class SamplingFields(BaseModel):
    """The fields of `SamplingParams`, for classes that carry them as their own (the frameworks' LLM classes)."""

    temperature: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        allow_inf_nan=False,
        description="T in softmax(z / T), for both target and drafter. 0 decodes greedily: it takes the most probable "
        "token of the law at T = 1",
    )
    top_k: int = Field(default=0, ge=0, description="keeps this many of the law's most probable tokens; 0 keeps all")
    top_p: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="keeps the law's most probable tokens until their probabilities sum to this; 1 keeps all",
    )
    min_p: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="drops tokens less probable than this share of the law's most probable token; 0 keeps all",
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0.0,
        le=10.0,
        description="divides positive logits, and multiplies negative logits, of tokens that occur in the target's "
        "prompt or in the output. A value above 1 makes them less likely; 1 switches it off",
    )
    frequency_penalty: float = Field(
        default=0.0,
        ge=-2.0,
        le=2.0,
        description="lowers a token's logit by this for each time that it occurs in the output; 0 switches it off",
    )
    presence_penalty: float = Field(
        default=0.0,
        ge=-2.0,
        le=2.0,
        description="lowers a token's logit by this once it occurs in the output; 0 switches it off",
    )
    logit_bias: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100.0, le=100.0)]], ...] = Field(
        default=(),
        description="is added to the logits of single tokens, of target and drafter alike: {token id: from -100 to "
        "100}. -100 practically forbids a token",
    )
    max_new_tokens: int = Field(
        default=256, ge=1, description='maximum length of the answer in tokens; if it is cut, finish_reason is "length"'
    )
    min_new_tokens: int = Field(
        default=0,
        ge=0,
        description="the model's own end of an answer is impossible before so many tokens: the end tokens' logits are "
        "-inf. A stop string still ends it. Not with a required form or with tools, which say where they end",
    )
    stop: tuple[str, ...] = Field(
        default=(), description="strings that end the answer when they appear. They are not part of it"
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="makes sampled output reproducible. The draft length then depends on modelled costs, not on "
        "measured times. With None, each request samples differently",
    )
    abstain_below: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="the answer is `abstain_text`, and no model runs, if the probability that the documents answer the "
        'question (`stats.answerable`) is below this; finish_reason is then "abstained". None always answers. Requests '
        "with tools or a required form are always answered",
    )
    abstain_text: str = Field(default=ABSTENTION, description="the answer if `abstain_below` withholds it")
    structured: StructuredOutput | None = Field(
        default=None,
        description="the required form of the answer (a JSON schema, a regular expression or a grammar), enforced "
        "token by token",
    )

    @field_validator("logit_bias", mode="before")
    @classmethod
    def _a_mapping_is_its_pairs(cls, value: object) -> object:
        return tuple(value.items()) if isinstance(value, Mapping) else value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_string_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("a stop string must not be empty")
        for index, text in enumerate(value):
            half = next((at for at, each in enumerate(text) if "\ud800" <= each <= "\udfff"), None)
            if half is not None:
                raise ValueError(
                    f"stop string {index} is not valid text: its character {half} is half of a surrogate pair, which "
                    "no answer contains. Leave it out"
                )
        return value


class SamplingParams(SamplingFields, Settings):
    """Settings for drawing tokens from the law.

    `temperature=0` decodes greedily: it takes the most probable token of the law at T = 1. Truncation applies to the
    law, not to target and drafter separately, in the order top-k, top-p, min-p.
    """

    @model_validator(mode="after")
    def _the_least_length_is_possible(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} is above max_new_tokens={self.max_new_tokens}: no answer has "
                "both. Lower the one or raise the other"
            )
        if self.min_new_tokens and self.structured is not None:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} with structured=...: the form says where the answer ends. Ask "
                "for longer values in the form (minLength, minItems), or leave min_new_tokens out"
            )
        return self

    @property
    def greedy(self) -> bool:
        """Whether tokens are chosen by argmax."""
        return self.temperature == 0.0


class SpeculationFields(BaseModel):
    """The fields of `SpeculationConfig`, for classes that carry them as their own."""

    law: LawName = Field(
        default="auto",
        description='the distribution of the output: "target" is p (lossless), "augmented" is exactly p_hat, "paper" '
        'is the published rule, which follows neither, and "lenient" is p with draft tokens that are nearly as likely '
        'as the best one (lossy). "auto" is "target" if the drafter is smaller than the target, else "augmented"',
    )
    leniency: float = Field(
        default=0.85,
        gt=0.0,
        le=1.0,
        description='for the law "lenient": a draft token stands if its probability is at least this share of the best '
        "token's. A smaller value is faster and further from the target",
    )
    eta: Eta | None = Field(
        default=None,
        description="strength of the shift eta (q - p) towards the drafter. 0 uses the target alone; a larger value "
        'gives retrieval more weight. "auto" chooses it at each position. None is "auto", except for the law "paper": '
        "there it is 10, or 40 if the drafter is larger than the target",
    )
    tail_rule: TailRule = Field(
        default="mask",
        description='"mask" shifts only tokens with q >= tail_alpha * max q, as the released code does. "restore" '
        "resets tokens with p_hat < tail_alpha * max p_hat to p (Eq. 9)",
    )
    tail_alpha: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="a token below this share of the largest probability counts as improbable; 0 switches the tail "
        "rule off",
    )
    proposer: str = Field(
        default="auto",
        description='what drafts tokens: "drafter", "draft_lm" (a third model), "draft_head" or "draft_head_tree" (a '
        'trained head), "prompt_lookup", "retrieval_tree", "datastore", "hybrid", "tree_hybrid", "adaptive" (whichever '
        'is fastest so far), "skipped_layers" (the target without some layers), "magicdec" or "triforce" (the target '
        'over few rows of its own cache) or "none" (one token at a time). "auto" is "tree_hybrid" on processors, '
        '"hybrid" elsewhere, and "drafter" for the published law. It changes the speed, but not the distribution of '
        "the output",
    )
    datastore: str | None = Field(
        default=None,
        description="file with an index of your own texts (rapid datastore build), from which the proposers "
        '"datastore", "retrieval_tree" and "tree_hybrid" copy',
    )
    datastore_grows: bool = Field(
        default=False,
        description="whether answers are added to the datastore, in a file beside it, for later requests. A sample "
        "with a seed is added, but does not look at them",
    )
    draft_length: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        default="auto",
        description='K, the number of tokens drafted in a round. "auto" chooses the fastest from acceptance and the '
        "costs of the steps. A round has 31 at most, which one pass of few rows verifies",
    )
    max_draft_length: int = Field(
        default=16,
        ge=1,
        le=64,
        description='maximum number of tokens that draft_length="auto" drafts in a round, which has 31 at most',
    )
    drafter_weights: tuple[Annotated[float, Field(gt=0.0, allow_inf_nan=False)], ...] | None = Field(
        default=None,
        description="for an engine with several drafters, the weight of each in q: first that of the drafter, then "
        "those of more_drafters. They are divided by their sum. None gives all the same",
    )
    draft_skip_layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None,
        description='layers that the proposer "skipped_layers" leaves out, by number from 0 on. None chooses them '
        "during the request, by acceptance for their cost",
    )
    draft_sinks: int = Field(
        default=64,
        ge=1,
        description='first tokens of the prompt that the proposers "magicdec" and "triforce" draft over, rounded up to '
        "whole blocks of 64",
    )
    draft_recent: int = Field(
        default=256, ge=1, description="last tokens that they draft over, rounded likewise; the answer comes on top"
    )
    draft_retrieved: bool = Field(
        default=True, description="whether they also draft over the target's rows of the passages that were retrieved"
    )
    chunk_cache: Literal["off", "target", "view"] = Field(
        default="off",
        description='where the drafter gets the keys and values of the retrieved chunks. With "off", it reads them. '
        'With "target", it takes the rows that the target has of the document, moved to their new positions, and reads '
        "the first 16 tokens of each run of them. This saves nearly all of its prefill. It changes q, but no answer of "
        'the law "target". With "view", it reads the rows where they lie, without a copy, and only the question '
        "anew. Both need self-speculation",
    )


class SpeculationConfig(SpeculationFields, Settings):
    """The distribution of the output (the law), and how tokens are drafted (proposer and draft length).

    - `law`: "target" is lossless; "augmented" is exactly p_hat at every position; "paper" is the published residual
      and bonus rule (arXiv 2502.20330, Eq. 10), whose output depends on the draft length. "lenient" is lossy: it is
      "target", but draft tokens also stand that are nearly as likely as the best one (`leniency`), so that its output
      depends on what is proposed. "auto" is "augmented" for a drafter at least as large as the target and "target" for
      a smaller one.
    - `eta`: strength of the knowledge transfer. "nearest" takes, at each position, the value that brings p_hat nearest
      to q, times the relevance of the retrieved text. "auto" takes less if q contradicts p, unless retrieval found what
      the question names (`rapid_integrations.sampling.adaptive_eta`). None is "auto", except for the law "paper": there
      it is 10, or 40 with a larger drafter.
    - `tail_rule`, `tail_alpha`: "mask" drops the shift of tokens with q < alpha * max q; "restore" is Eq. 9.
    - `proposer`: a name registered in `rapid_integrations.proposers`; "none" decodes one token at a time. "hybrid"
      copies if the text repeats and drafts otherwise, and "tree_hybrid" copies several continuations at once. "auto" is
      "tree_hybrid" on processors, "hybrid" elsewhere, and "drafter" for the law "paper". "adaptive" prefers a tree of
      copies, drafts or nothing, whichever gave the most tokens for its cost so far.
    - `draft_length`: "auto" picks the length with the best expected speed, at most `max_draft_length`.
    - `chunk_cache`: "target" and "view" spare the drafter its prefill. q is then that of a drafter whose chunks have
      seen what stands before them in the document (`rapid_integrations.decoding.moved_rows`, `decoding.chunk_view`).
    """


PAPER_RETRIEVAL = {"chunk_tokens": 512, "search": "vectors", "neighbours": 0.0, "largest_share": 1 / 6}
"""The values of `CompressionConfig(preset="paper")` that differ from the defaults."""


class CompressionConfig(Settings):
    """Settings for the drafter's context: the best chunks within a budget, in document order.

    The budget is max(ratio * len, min(min_tokens, largest_share * len)) tokens for a context of `len` tokens. Chunks
    are ranked by words (BM25) and by the embedder's similarity together, and with the help of their neighbours. The
    defaults follow what was measured on questions with annotated evidence (docs/evaluation.md). `preset="paper"` takes
    chunks of 512 tokens and ranks by similarity alone (arXiv 2502.20330, section 4.1). Settings that are given beside a
    preset take precedence. At least `min_chunks` are kept, whatever their score.
    """

    preset: Literal["default", "paper"] = Field(
        default="default",
        description='where settings that are not given come from: "default" follows evidence, "paper" takes chunks of '
        "512 tokens, ranked by similarity alone, from at most a sixth of the context",
    )
    chunk_tokens: int = Field(
        default=128,
        ge=16,
        le=8192,
        description="maximum size of a chunk in target tokens. A chunk is scored, and kept or left out, as a whole",
    )
    search: Literal["hybrid", "vectors", "words"] = Field(
        default="hybrid",
        description='what ranks the chunks: "vectors" is the similarity of embeddings, "words" is BM25, which needs no '
        'embedder, and "hybrid" is both',
    )
    neighbours: float = Field(
        default=0.3,
        ge=0.0,
        le=1.0,
        description="how much a chunk gains from the chunks before and behind it; 0 ranks each chunk by itself. With "
        "1, the neighbours of the best chunk rank as high as it does",
    )
    rounds: int = Field(
        default=1,
        ge=1,
        le=2,
        description="number of searches; the second one looks for what the best chunk names and for what it lacks of "
        'the question, for questions of several hops. search="vectors" has one round',
    )
    threshold: float | None = Field(
        default=None,
        ge=-1.0,
        le=1.0,
        description="lowest cosine similarity to the question with which a chunk is kept. None takes the embedder's "
        'own threshold with search="vectors", and otherwise no threshold',
    )
    min_tokens: int = Field(
        default=4096,
        ge=1,
        description="lower limit of the budget in tokens, but at most largest_share of the context",
    )
    largest_share: float = Field(
        default=1 / 4,
        gt=0.0,
        le=1.0,
        description="largest share of a context that the drafter reads because of min_tokens",
    )
    ratio: float = Field(
        default=1 / 24,
        ge=0.0,
        le=1.0,
        description="share of a context's tokens that the drafter reads, if that is more than min_tokens allows",
    )
    min_chunks: int = Field(
        default=2, ge=1, description="number of best chunks that are kept whatever their score and size"
    )
    opening_tokens: int = Field(
        default=0,
        ge=0,
        description="tokens of the beginning of the first document that the drafter always reads, in whole chunks and "
        "at most a sixth of the budget: a contract's name, parties and date, which the words of a question do not find",
    )

    @model_validator(mode="before")
    @classmethod
    def _settings_of_the_preset(cls, values: object) -> object:
        if isinstance(values, Mapping) and values.get("preset") == "paper":
            return {**PAPER_RETRIEVAL, **values}
        return values

    def budget(self, context_tokens: int) -> int:
        """Return how many tokens of a context of `context_tokens` the drafter reads."""
        return max(int(self.ratio * context_tokens), min(self.min_tokens, int(self.largest_share * context_tokens)))

    def opening(self, budget: int) -> int:
        """Return how many tokens of a document's beginning the drafter reads in any case."""
        return min(self.opening_tokens, budget // 6)


# --- other libraries' names -----------------------------------------------------------------------------------------

SETTING_ALIASES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "max_output_tokens": "max_new_tokens",
    "num_output": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "repeat_penalty": "repetition_penalty",
    "random_seed": "seed",
    "num_assistant_tokens": "draft_length",
    "num_speculative_tokens": "draft_length",
}
"""Other libraries' names for settings that may differ between two requests."""

_NO_ALIASES: Mapping[str, str] = {}

_NO_SERVER = (
    "the model runs in this process and needs no server: leave it out. RapidEngine.connect(url), or base_url=... of "
    "RapidLLM and ChatRapid, asks an engine on a server"
)
_READ = "it is read from the model: leave it out"
_ONE = "an engine gives one answer to a request: ask several times, each with a seed of its own"
_STRUCTURED = "structured=StructuredOutput(json_schema=..., or regex=..., or grammar=...)"
_NOT_OFFERED = "this engine has no such setting: leave it out"
_OF_TEMPLATE = "it is an argument of some models' chat templates: chat_template_kwargs={'enable_thinking': False}"
_TABLE: dict[str, str] = {
    **dict.fromkeys(("base_url", "api_base", "host", "endpoint_url", "openai_api_base", "default_headers"), _NO_SERVER),
    **dict.fromkeys(("api_key", "openai_api_key", "huggingfacehub_api_token", "token", "request_timeout"), _NO_SERVER),
    **dict.fromkeys(("timeout", "max_retries", "keep_alive", "api_version", "http_client"), _NO_SERVER),
    **dict.fromkeys(("is_chat_model", "is_function_calling_model", "max_position_embeddings"), _READ),
    **dict.fromkeys(("n_ctx", "num_ctx", "max_model_len", "context_length", "max_seq_len"), _READ),
    **dict.fromkeys(("n", "best_of", "num_return_sequences", "num_beams"), _ONE),
    "task": 'this engine only generates text: leave it out, or give "text-generation"',
    "tokenizer_name": "a model is loaded with its own tokenizer: leave it out",
    "tokenizer_kwargs": "a model is loaded with its own tokenizer, and nothing is truncated: leave it out",
    "stopping_ids": 'stop=("...",) takes the strings themselves; end-of-turn tokens are read from the model',
    "stopping_criteria": 'stop=("...",) takes strings',
    "eos_token_id": "end-of-turn tokens are read from the model; stop=(...) takes strings",
    "ignore_eos": "min_new_tokens=max_new_tokens writes on where the model would end",
    "min_length": "min_new_tokens counts the answer alone",
    "max_length": "max_new_tokens counts the answer alone; the prompt may fill the rest of the context window",
    "load_in_8bit": 'quantization="int8"',
    "load_in_4bit": 'quantization="int4"',
    "quantization_config": 'quantization="int8" or "int4"',
    "n_gpu_layers": 'device="cuda", or device_map= for several devices',
    "tensor_parallel_size": 'device_map="auto" spreads a model over devices',
    "gpu_memory_utilization": "kv_cache_bytes limits the caches of running requests, prefix_cache_bytes those between "
    "requests",
    "max_num_seqs": "kv_cache_bytes limits the caches of running requests; further requests wait",
    "n_threads": "torch.set_num_threads or OMP_NUM_THREADS",
    "num_thread": "torch.set_num_threads or OMP_NUM_THREADS",
    **dict.fromkeys(("response_format", "guided_json", "json_schema", "format", "json_mode"), _STRUCTURED),
    **dict.fromkeys(("guided_regex", "guided_choice", "grammar", "guided_grammar"), _STRUCTURED),
    **dict.fromkeys(("typical_p", "mirostat", "tfs_z"), _NOT_OFFERED),
    **dict.fromkeys(("enable_thinking", "thinking", "reasoning_effort", "thinking_budget"), _OF_TEMPLATE),
    "context_window": _READ,
    "system_prompt": "give a system message with the prompt",
    "cache_folder": "HF_HOME sets the folder for models of a hub, RAPID_HOME the one for packaged models",
    "cache_dir": "HF_HOME sets the folder for models of a hub, RAPID_HOME the one for packaged models",
    "pipeline": "model=pipeline.model, tokenizer=pipeline.tokenizer",
    "llm": "engine=llm.rapid_engine",
    "streaming": "stream_complete, stream_chat and their asynchronous forms stream",
    "embedding": "embed_model",
    "embedding_model": "embed_model",
    "embeddings": "embed_model",
    "embed_model": "embeddings",
    "chunk_size": "compression=CompressionConfig(chunk_tokens=...)",
    "logprobs": "an answer's tokens are explained by `rapid_integrations.trace`: engine.stream(..., trace=True)",
    "top_logprobs": "an answer's tokens are explained by `rapid_integrations.trace`: engine.stream(..., trace=True)",
    "text_splitter": "node_parser",
    "node_parser": "text_splitter",
}
_ELSEWHERE = {
    **dict.fromkeys(CompressionConfig.model_fields, "compression=CompressionConfig({}=...)"),
    **dict.fromkeys(SamplingFields.model_fields, "sampling=SamplingParams({}=...)"),
    **dict.fromkeys(SpeculationFields.model_fields, "speculation=SpeculationConfig({}=...)"),
}


def refuse_unknown(
    owner: str,
    names: Iterable[str],
    known: Collection[str],
    aliases: Mapping[str, str] = _NO_ALIASES,
    where: str = "",
) -> None:
    """Refuse unknown names, and suggest for each the name that was probably meant.

    Raises:
        ConfigurationError: a name is unknown.
    """
    if unknown := [name for name in names if name not in known]:
        said = "; ".join(unknown_name(owner, name, known, aliases, where) for name in unknown)
        raise ConfigurationError(said, code="unknown_name")


def unknown_name(
    owner: str, name: str, known: Collection[str], aliases: Mapping[str, str] = _NO_ALIASES, where: str = ""
) -> str:
    """Return the message for an unknown name: it suggests the likely name, or lists the known ones if they are few."""
    said = f"{owner} has no option {name!r}{where}"
    if (hint := _TABLE.get(name)) is not None and (hint not in _TABLE or hint in known):
        return f"{said}: {hint}=..." if hint in known else f"{said}: {hint}"
    if name in _ELSEWHERE:
        return f"{said}: give {_ELSEWHERE[name].format(name)}"
    # A misspelt name such as "tagret" is close to one known name. Other words are close to none.
    names = {**{alias: own for alias, own in aliases.items() if own in known}, **{own: own for own in known}}
    if alike := difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7):
        return f"{said}: did you mean {names[alike[0]]!r}?"
    if len(known) <= 16:
        return f"{said}; it has: {', '.join(known)}"
    return f"{said}; docs/configuration.md lists all options"


def require_known(
    function: Callable[..., Any], options: Iterable[str], *others: Callable[..., Any], owner: type | None = None
) -> None:
    """Refuse keyword arguments that neither `function` takes nor any of `others`, to which it passes them on.

    Args:
        function: the function that was called.
        options: the names that it was given.
        others: functions to which it passes its arguments on.
        owner: the class that the message names. None names the class that defines the function.

    Raises:
        ConfigurationError: an argument is unknown.
    """
    parameters = [each for one in (function, *others) for each in inspect.signature(one).parameters.values()]
    if not others and any(each.kind is each.VAR_KEYWORD for each in parameters):
        return  # a subclass's method, which takes more arguments than ours
    takes = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    known = [name for name in dict.fromkeys(takes) if name != "self"]
    if known:  # without known names, it is a wrapper that takes anything, and its function refuses unknown names
        name = function.__qualname__ if owner is None else f"{owner.__name__}.{function.__name__}"
        refuse_unknown(name, options, known)
