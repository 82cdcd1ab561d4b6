"""Preparing a request: split and render the prompt, compress the context, and build the answer's constraint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import numpy as np

from rapid_integrations.cache.out_of_memory import memory_errors_taught
from rapid_integrations.cache.prefix_cache import common_prefix
from rapid_integrations.compression import (
    Compression,
    IndexesAhead,
    MeasuresSimilarity,
    answerable,
    query_coverage,
    query_presence,
)
from rapid_integrations.config import SamplingParams, StructuredOutput
from rapid_integrations.decoding.chunk_view import choose
from rapid_integrations.decoding.moved_rows import common_runs
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.plan import plan_request
from rapid_integrations.engine.prepared_prompt import Beginning, PreparedPrompt, about
from rapid_integrations.engine.read_ahead import question_first
from rapid_integrations.engine.request import Asked, Request, ToolDeclarations
from rapid_integrations.errors import ConfigurationError, ContextOverflowError, PromptError
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.thinking_marks import marks_of, shown_tokens
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import NO_ARGUMENTS, PromptLike, RenderedPrompt, TemplateArguments, render
from rapid_integrations.prompt.chat_template import with_reasoning_named
from rapid_integrations.structured.held import Held
from rapid_integrations.tool_calls import CallFormat, ToolRequest, learn_call_format
from rapid_integrations.tool_calls.declaration import completed
from rapid_integrations.tool_calls.history import History, calls_tools
from rapid_integrations.tool_calls.known_forms import known_form
from rapid_integrations.tool_calls.request import AUTO, NO_TOOLS

if TYPE_CHECKING:
    from rapid_integrations.trace.tracer import Tracer

_SMALLER = "Shorten the document, or use a smaller embedder, or one on another device"
_COUNTED_WHOLE = 200_000  # characters; tokenizing them takes some tenths of a second
_CHARACTERS_A_TOKEN = 4
_FORMATS_KEPT = 64
_CERTAIN, _CUT_WORD = 1.05, 256  # factor and number of tokens: cutting a text may add so many


class Preparing:
    """The stages of a request before a model runs.

    Args:
        vocabulary: the target's vocabulary, which all models share.
        model_name: the target's name, for messages.
        vocab_size: V, the number of logits that all models have.
    """

    def __init__(self, vocabulary: Vocabulary, model_name: str, vocab_size: int) -> None:
        self._vocabulary = vocabulary
        self._model_name = model_name
        self._vocab_size = vocab_size
        self._formats: dict[str, CallFormat] = {}  # learnt, by the arguments of the chat template

    def supports_tools(self, arguments: TemplateArguments) -> bool:
        """Return whether the model's chat template takes tools and writes their calls in a form that can be read."""
        try:
            return bool(self.call_format(arguments))
        except ConfigurationError:
            return False

    def request(self, asked: Asked, models: EngineModels, candidates: int | None) -> Request:
        """Return a request that can run. Errors of the request are raised here.

        Args:
            asked: the caller's arguments.
            models: the engine's.
            candidates: number of the most probable tokens that the trace holds of each distribution; None traces
                nothing.

        Raises:
            PromptError, ConfigurationError, ContextOverflowError, OutOfMemoryError, MissingExtraError: see
                `RapidEngine.stream`.
        """
        plan = plan_request(asked.speculation, asked.sampling, models)
        self._require_tokens(asked.sampling)
        tools = self._tools_of(asked)
        recorder = Recorder(*(model.device for model in models.all))

        # 1) split the prompt into context and question
        rendered = self._rendered(asked, tools)
        marks = marks_of(self._vocabulary, rendered)
        tools = None if tools is None else replace(tools, marks=marks)
        held = self._held(asked.sampling, tools)
        target_ids = self._target_ids(rendered, models.target, asked.sampling.max_new_tokens)

        # 2) compress the context for the drafter
        with recorder.phase("compress"):
            if plan.retrieves:
                prompts = self._compressed(rendered, target_ids, asked)
            else:
                prompts = PreparedPrompt(rendered, rendered, target_ids, target_ids, None)
                if asked.sampling.abstain_below is not None:  # as a request with a drafter would
                    compressed = self._compressed(rendered, target_ids, asked)
                    prompts = replace(prompts, answerable=compressed.answerable)

        plan = plan.for_prompts(prompts, models.self_speculation)
        if plan.uses_drafter:
            for model in (models.drafter, *models.more_drafters):
                _require_room(model, prompts.drafter_ids, asked.sampling.max_new_tokens)
        if plan.uses_draft_lm and models.draft_lm is not None:
            _require_room(models.draft_lm, prompts.drafter_ids, asked.sampling.max_new_tokens)
        kept = shown_tokens(self._vocabulary, marks)
        if tools is not None:
            kept |= tools.kept_tokens(self._vocabulary)
        tracer = None if candidates is None else self._tracer(asked, prompts, kept, candidates)
        runs, chosen = None, None
        if plan.takes_rows and plan.uses_drafter:
            with recorder.phase("compress"):
                runs = tuple(common_runs(prompts.drafter_ids, target_ids))
                if plan.views_rows:
                    chosen = choose(prompts.drafter_ids, target_ids, runs, self._closing(prompts.target))
        return Request(asked, prompts, plan, tools, held, recorder, kept, tracer, runs, chosen)

    def beginning(self, asked: Asked, other: Asked, models: EngineModels) -> Beginning:
        """Return what the prompts of all questions begin with, and index the contexts for retrieval.

        Args:
            asked, other: two requests that differ only in their questions.
            models: the engine's models.

        Raises:
            PromptError: the prompts differ before their first document ends.
            ConfigurationError, ContextOverflowError, OutOfMemoryError: see `RapidEngine.read`.
        """
        rendered, unlike = (self._rendered(each, self._tools_of(each)) for each in (asked, other))
        ids = self._target_ids(rendered, models.target, 1)
        second = self._target_ids(unlike, models.target, 1)
        shared = common_prefix(np.asarray(ids), np.asarray(second))
        same = len(commonprefix([rendered.text, unlike.text]))
        if rendered.context_spans and same < rendered.context_spans[0][1]:
            raise question_first()
        whole = False
        if rendered.context_spans and isinstance(asked.compressor, IndexesAhead):
            with memory_errors_taught("indexing the documents", _SMALLER):
                whole = not asked.compressor.index(rendered.contexts, asked.compression, asked.report)
        # A document that is not shortened is the beginning of the other models' prompts, too.
        others = [model for model in models.all if model is not models.target] if whole else []
        return Beginning(ids[: shared + 1], about(rendered), (models.target, *dict.fromkeys(others)))

    def _require_tokens(self, sampling: SamplingParams) -> None:
        """Refuse a bias of a token that the models do not have."""
        if wrong := [token for token, _ in sampling.logit_bias if token >= self._vocab_size]:
            raise ConfigurationError(
                f"logit_bias names the token {max(wrong):,}, and {self._model_name} has {self._vocab_size:,}: give ids "
                "of its own tokenizer",
                code="wrong_value",
            )

    def _closing(self, prompt: RenderedPrompt) -> int:
        """Return roughly how many tokens stand behind the last context."""
        begin = prompt.context_spans[-1][1] if prompt.context_spans else 0
        return len(self._vocabulary.encode(prompt.text[begin:]))

    def prompts(self, asked: Asked) -> PreparedPrompt:
        """Return the prompts that both models would read. Only the embedder runs."""
        rendered = self._rendered(asked, self._tools_of(asked))
        return self._compressed(rendered, self._vocabulary.encode_prompt(rendered), asked)

    def count_tokens(
        self,
        prompt: PromptLike,
        tools: ToolDeclarations | None,
        apply_chat_template: bool | None,
        arguments: TemplateArguments,
    ) -> int:
        """Return the number of tokens that the target would read, including those of its chat template."""
        request = self._request_tools(tools, AUTO, True, arguments)
        return len(self._vocabulary.encode_prompt(self._split(prompt, apply_chat_template, request, arguments)))

    def _rendered(self, asked: Asked, tools: ToolRequest | None) -> RenderedPrompt:
        return self._split(asked.prompt, asked.apply_chat_template, tools, asked.chat_template_kwargs)

    def _split(
        self,
        prompt: PromptLike,
        apply_chat_template: bool | None,
        request: ToolRequest | None,
        arguments: TemplateArguments,
    ) -> RenderedPrompt:
        """Return the target's text with its context spans and question.

        Raises:
            PromptError: see `render`.
            ConfigurationError: a chat template is requested or needed, but the model has none.
        """
        template = None if apply_chat_template is False else self._vocabulary.chat_template
        if apply_chat_template and template is None:
            raise ConfigurationError(
                f"apply_chat_template=True, but {self._model_name} has no chat template", code="no_chat_template"
            )
        if request is not None and template is None:
            raise ConfigurationError(
                "apply_chat_template=False with tools: only the chat template tells the model of them. Leave it out"
            )
        declarations = None if request is None else request.declarations
        return render(prompt, template and partial(self._render_chat, tools=declarations, arguments=arguments))

    def _render_chat(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, arguments: TemplateArguments
    ) -> str:
        messages = [with_reasoning_named(message) for message in messages]
        rendered = partial(self._written, tools=tools, arguments=arguments)
        if not calls_tools(messages):
            return rendered(messages)
        writes_calls = "tool_calls" in str(self._vocabulary.tokenizer.chat_template)
        form = self.call_format(arguments) if self.supports_tools(arguments) else None
        if form is None and not writes_calls:
            form = self._known_form
        return History(rendered, form, writes_calls, self._model_name).text(messages)

    def _written(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, arguments: TemplateArguments
    ) -> str:
        """Return what the template writes, with what it misses in declarations of tools filled in."""
        try:
            return self._vocabulary.render_chat(messages, tools, arguments=arguments)
        except PromptError:
            if not tools or (whole := [completed(tool) for tool in tools]) == tools:
                raise
            try:
                return self._vocabulary.render_chat(messages, whole, arguments=arguments)
            except PromptError:
                pass  # the first error is about what was given
            raise

    @property
    def _known_form(self) -> CallFormat | None:
        """The form of the model's calls as far as its tokens tell."""
        return known_form(self._vocabulary.added_tokens)

    def _tools_of(self, asked: Asked) -> ToolRequest | None:
        return self._request_tools(
            asked.tools, asked.tool_choice, asked.parallel_tool_calls, asked.chat_template_kwargs
        )

    def _request_tools(
        self,
        tools: ToolDeclarations | None,
        choice: str,
        parallel: bool,
        arguments: TemplateArguments = NO_ARGUMENTS,
    ) -> ToolRequest | None:
        """Return the checked declarations of tools; None without tools.

        Raises:
            ConfigurationError: a declaration or the choice is invalid, or the model cannot call tools.
        """
        if not tools or choice == NO_TOOLS:
            return None
        return ToolRequest.check(tools, choice, parallel, self.call_format(arguments))

    def call_format(self, arguments: TemplateArguments) -> CallFormat:
        """Return the format in which the model writes a call. It is learnt from the chat template on first use."""
        if (known := self._formats.get(arguments.key)) is not None:
            return known
        if self._vocabulary.chat_template is None:
            raise ConfigurationError(
                f"{self._model_name} cannot call tools: it has no chat template. Use an instruction-tuned model"
            )
        render = partial(self._vocabulary.render_chat, arguments=arguments)
        found = learn_call_format(render, self._vocabulary.eos_tokens, self._model_name, self._known_form)
        if len(self._formats) >= _FORMATS_KEPT:  # callers of a server choose the arguments
            self._formats.clear()
        self._formats[arguments.key] = found
        return found

    def _target_ids(self, rendered: RenderedPrompt, model: CausalLM, new_tokens: int) -> list[int]:
        """Return the target's tokens. Checks that they fit before any time is spent on retrieval.

        If a text is several times too long, only its beginning is tokenized, because the whole could take minutes.

        Raises:
            ContextOverflowError: prompt and longest answer exceed the context window.
            PromptError: the prompt has no tokens.
        """
        limit = model.context_window - new_tokens
        text = rendered.text
        characters = max(_COUNTED_WHOLE, _CHARACTERS_A_TOKEN * max(limit, 0))
        while 2 * characters < len(text):
            begin = RenderedPrompt(text[:characters], (), (), "", "plain", templated=True)
            tokens = len(self._vocabulary.encode_prompt(begin))
            # The rest of the text cannot lower the count by this much, because a tokenizer merges only within words.
            if tokens > _CERTAIN * limit + _CUT_WORD:
                raise ContextOverflowError(
                    model=model.name,
                    prompt_tokens=tokens * len(text) // characters,
                    new_tokens=new_tokens,
                    context_window=model.context_window,
                    estimated=True,
                    outside=tokens * _outside(rendered) // characters,
                )
            characters *= 2
        ids = self._vocabulary.encode_prompt(rendered)
        outside = None
        if len(ids) >= model.context_window:
            outside = max(0, len(ids) - sum(len(self._vocabulary.offsets(text)) for text in rendered.contexts))
        _require_room(model, ids, new_tokens, outside)
        if not ids:
            raise PromptError("the prompt has no tokens: the tokenizer drops all of its text. Give another prompt")
        return ids

    def _compressed(self, rendered: RenderedPrompt, target_ids: list[int], asked: Asked) -> PreparedPrompt:
        """Return both prompts. The drafter's is the target's with the retrieved chunks in place of the contexts."""
        if not rendered.context_spans:
            return PreparedPrompt(rendered, rendered, target_ids, target_ids, None)
        query = _searched(rendered)
        with memory_errors_taught("finding the passages that the question needs", _SMALLER):
            compression = asked.compressor.compress(rendered.contexts, query, asked.compression, asked.report)
        says = _answerable(rendered.contexts, query, compression, asked)
        if not compression.shortened:
            return PreparedPrompt(rendered, rendered, target_ids, target_ids, compression, answerable=says)
        drafter = rendered.splice(compression.texts)
        covered = query_coverage(rendered.contexts, compression.texts, query)
        drafter_ids = self._vocabulary.encode_prompt(drafter)
        return PreparedPrompt(rendered, drafter, target_ids, drafter_ids, compression, covered, says)

    def _tracer(self, asked: Asked, prompts: PreparedPrompt, kept: frozenset[int], candidates: int) -> Tracer:
        """Return the recorder of each token's source."""
        from rapid_integrations.trace.tracer import Tracer

        vocabulary = self._vocabulary
        settings = (asked.sampling, asked.speculation, asked.compression)
        values = {name: value for each in settings for name, value in each.model_dump(mode="json").items()}
        names = {index: token for token, index in vocabulary.added_tokens.items()}
        return Tracer(
            prompts.target.query,
            prompts.target.contexts,
            values,
            partial(vocabulary.decode, keep=kept),
            lambda token: names.get(token) or vocabulary.decode([token]),
            candidates,
            partial(vocabulary.decode_finished, keep=kept),
        )

    def _held(self, sampling: SamplingParams, request: ToolRequest | None) -> Held:
        """Return the constraint of the answer: a schema, regex or grammar. With tools, it also allows calls.

        Raises:
            ConfigurationError: the schema, regex or grammar cannot be used.
            MissingExtraError: llguidance is not installed.
        """
        if request is not None:
            if sampling.min_new_tokens:
                raise ConfigurationError(
                    f"min_new_tokens={sampling.min_new_tokens} and tools in one request: a call ends where its "
                    "arguments are complete. Leave one of the two out"
                )
            return self._with_tools(sampling.structured, request)
        asked = sampling.structured
        if asked is None:
            return Held()
        from rapid_integrations.structured import GrammarConstraint, grammar_of

        grammar = grammar_of(asked)
        constraint = GrammarConstraint(self._vocabulary, self._vocab_size, grammar)
        return Held(constraint, grammar.unenforced, _to_check(asked, grammar.unenforced))

    def _with_tools(self, asked: StructuredOutput | None, request: ToolRequest) -> Held:
        answer = None
        if asked is not None and request.choice == AUTO:  # otherwise the answer is always a call
            if asked.json_schema is None:
                raise ConfigurationError(
                    "a regex or a grammar and tools in one request: beside tools, an answer can only follow a JSON "
                    "schema. Use json_schema, tool_choice='none', or two requests"
                )
            from rapid_integrations.structured.grammar import require_enforceable

            answer = require_enforceable(asked.json_schema)
        constraint = request.constraint(self._vocabulary, self._vocab_size, answer)
        left_out = () if answer is None else answer.unenforced
        of_tools: tuple[str, ...] = ()
        if constraint is not None:
            of_tools = tuple(f"{name}: {each}" for name, found in request.enforced.items() for each in found.unenforced)
        return Held(constraint, (*left_out, *of_tools), None if asked is None else _to_check(asked, left_out))


def _to_check(asked: StructuredOutput, unenforced: tuple[str, ...]) -> Any:
    return asked.json_schema if asked.checked and unenforced else None


def _outside(prompt: RenderedPrompt) -> int:
    """Return how many characters of a prompt stand outside of its contexts."""
    return len(prompt.text) - sum(end - start for start, end in prompt.context_spans)


def _require_room(model: CausalLM, prompt_ids: list[int], new_tokens: int, outside: int | None = None) -> None:
    """Raise ContextOverflowError if the prompt and the longest answer exceed the model's context window.

    `outside` counts the tokens outside of the documents.
    """
    if len(prompt_ids) + new_tokens > model.context_window:
        raise ContextOverflowError(
            model=model.name,
            prompt_tokens=len(prompt_ids),
            new_tokens=new_tokens,
            context_window=model.context_window,
            outside=outside,
        )


def _answerable(contexts: Sequence[str], query: str, compression: Compression, asked: Asked) -> float | None:
    """Return the probability that contexts answer a question.

    Contexts that stay whole were not searched. They are if the request may abstain; otherwise None is returned.
    """
    similarity = compression.similarity
    if not compression.shortened:
        if asked.sampling.abstain_below is None:
            return None
        if isinstance(asked.compressor, MeasuresSimilarity):
            similarity = asked.compressor.similarity(contexts, query, asked.compression, asked.report)
    return answerable(query_presence(contexts, query), similarity)


def _searched(rendered: RenderedPrompt) -> str:
    """Return what is searched for: the question, behind the one before it if it names too little by itself.

    A follow-up ("And after him?") names less than one word that occurs once in the contexts. Its own coverage by the
    whole of them is then below 1.
    """
    if rendered.earlier_query.strip() and query_coverage(rendered.contexts, rendered.contexts, rendered.query) < 1.0:
        return f"{rendered.earlier_query}\n{rendered.query}"
    return rendered.query
