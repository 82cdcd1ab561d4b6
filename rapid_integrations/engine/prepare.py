"""From a request to what each model reads: split, render, compress, and what the answer is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

from rapid_integrations.cache.out_of_memory import memory_errors_taught
from rapid_integrations.compression import Compression, ContextCompressor, query_coverage
from rapid_integrations.config import CompressionConfig, SamplingParams, StructuredOutput
from rapid_integrations.errors import ConfigurationError, ContextOverflowError, PromptError
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.outputs import RetrievedChunk
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import PromptLike, RenderedPrompt, render
from rapid_integrations.structured.held import Held
from rapid_integrations.tool_calls import CallFormat, ToolRequest, learn_call_format
from rapid_integrations.tool_calls.request import AUTO, NO_TOOLS, with_arguments_as

_COUNTED_WHOLE = 200_000  # characters; some tenths of a second
_CHARACTERS_A_TOKEN = 4
_CERTAIN, _CUT_WORD = 1.05, 256  # of the tokens of a text that is cut somewhere, how many may come from the cut

ToolDeclarations: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PreparedPrompt:
    """What each of the two models reads for a request.

    Attributes:
        target, drafter: the rendered prompts; the drafter's has its context spans replaced.
        target_ids, drafter_ids: their tokens.
        compression: what was retrieved; None where nothing was (plain decoding, or no drafter in the request).
        query_coverage: how much of what the question names was retrieved (see `compression.query_coverage`); None where
            nothing was left out.
    """

    target: RenderedPrompt
    drafter: RenderedPrompt
    target_ids: list[int]
    drafter_ids: list[int]
    compression: Compression | None
    query_coverage: float | None = None

    @property
    def retrieved(self) -> tuple[RetrievedChunk, ...]:
        """The chunks that the drafter reads, in document order."""
        if self.compression is None:
            return ()
        return tuple(
            RetrievedChunk(
                context=context,
                start=scored.chunk.start,
                end=scored.chunk.end,
                text=scored.chunk.text,
                tokens=scored.chunk.tokens,
                score=scored.score,
            )
            for context, selected in enumerate(self.compression.selected)
            for scored in selected
        )


class Preparing:
    """The stages of a request before a model runs.

    Args:
        vocabulary: of the target, and so of every model.
        model_name: the target's, for messages.
        vocab_size: of the law: the logits that all models have.
    """

    def __init__(self, vocabulary: Vocabulary, model_name: str, vocab_size: int) -> None:
        self._vocabulary = vocabulary
        self._model_name = model_name
        self._vocab_size = vocab_size

    @property
    def supports_tools(self) -> bool:
        """Whether the model's chat template takes tools and writes their calls with JSON arguments."""
        try:
            return bool(self.call_format)
        except ConfigurationError:
            return False

    def split(
        self, prompt: PromptLike, apply_chat_template: bool | None, request: ToolRequest | None
    ) -> RenderedPrompt:
        """Return the target's text with its context spans and question.

        Raises:
            PromptError: see `render`; ConfigurationError: a chat template is asked for, or needed, and not there.
        """
        template = None if apply_chat_template is False else self._vocabulary.chat_template
        if apply_chat_template and template is None:
            raise ConfigurationError(
                f"apply_chat_template=True, but {self._model_name} has no chat template", code="no_chat_template"
            )
        if request is not None and template is None:
            raise ConfigurationError(
                "apply_chat_template=False with tools: the chat template is what tells the model of them. Leave it out"
            )
        declarations = None if request is None else request.declarations
        return render(prompt, template and partial(self._render_chat, tools=declarations))

    def _render_chat(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        if any(message.get("tool_calls") for message in messages):
            as_text = self.supports_tools and self.call_format.arguments_as_text
            messages = with_arguments_as(messages, as_text)
        return self._vocabulary.render_chat(messages, tools)

    def request_tools(self, tools: ToolDeclarations | None, choice: str, parallel: bool) -> ToolRequest | None:
        """Return what the model may call, checked; None without tools.

        Raises:
            ConfigurationError: a declaration or choice that cannot work, or a model that cannot call tools.
        """
        if not tools or choice == NO_TOOLS:
            return None
        return ToolRequest.check(tools, choice, parallel, self.call_format)

    @cached_property
    def call_format(self) -> CallFormat:
        """How the model writes a call, learnt from its chat template when it is first needed."""
        if self._vocabulary.chat_template is None:
            raise ConfigurationError(
                f"{self._model_name} cannot call tools: it has no chat template. Use an instruction-tuned model"
            )
        return learn_call_format(self._vocabulary.render_chat, self._vocabulary.eos_tokens, self._model_name)

    def target_ids(self, rendered: RenderedPrompt, model: CausalLM, new_tokens: int) -> list[int]:
        """Return what the target reads, of which it has room for all: nothing is retrieved for a prompt that has none.

        A text that is several times too long is not counted to its end, which would take as long as reading a book.

        Raises:
            ContextOverflowError: prompt and longest answer exceed the context window.
            PromptError: there is nothing to read.
        """
        limit = model.context_window - new_tokens
        text = rendered.text
        characters = max(_COUNTED_WHOLE, _CHARACTERS_A_TOKEN * max(limit, 0))
        while 2 * characters < len(text):
            begin = RenderedPrompt(text[:characters], (), (), "", "plain", templated=True)
            tokens = len(self._vocabulary.encode_prompt(begin))
            # Whatever follows, a tokenizer does not undo so many: it merges within words.
            if tokens > _CERTAIN * limit + _CUT_WORD:
                raise ContextOverflowError(
                    model=model.name,
                    prompt_tokens=tokens * len(text) // characters,
                    new_tokens=new_tokens,
                    context_window=model.context_window,
                    estimated=True,
                )
            characters *= 2
        ids = self._vocabulary.encode_prompt(rendered)
        require_room(model, ids, new_tokens)
        if not ids:
            raise PromptError("the prompt has no tokens: the model's tokenizer drops all of its text; give another one")
        return ids

    def compress(
        self,
        rendered: RenderedPrompt,
        config: CompressionConfig,
        compressor: ContextCompressor,
        report: OnProgress,
        target_ids: list[int] | None = None,
    ) -> PreparedPrompt:
        """Return both prompts: the drafter's is the target's with its contexts replaced by what was retrieved.

        `target_ids`: of `rendered`, where they are known.
        """
        if target_ids is None:
            target_ids = self._vocabulary.encode_prompt(rendered)
        if not rendered.context_spans:
            return PreparedPrompt(rendered, rendered, target_ids, target_ids, None)
        way_out = "Shorten the document, or use a smaller embedder, or one on another device"
        with memory_errors_taught("finding the passages that the question needs", way_out):
            compression = compressor.compress(rendered.contexts, rendered.query, config, report)
        if not compression.shortened:
            return PreparedPrompt(rendered, rendered, target_ids, target_ids, compression)
        drafter = rendered.splice(compression.texts)
        covered = query_coverage(rendered.contexts, compression.texts, rendered.query)
        drafter_ids = self._vocabulary.encode_prompt(drafter)
        return PreparedPrompt(rendered, drafter, target_ids, drafter_ids, compression, covered)

    def constrain(self, sampling: SamplingParams, request: ToolRequest | None) -> Held:
        """Return what the answer is held to: a schema, regex or grammar; with tools, a call or an answer by schema.

        Raises:
            ConfigurationError: a schema, regex or grammar that cannot be used.
            MissingExtraError: llguidance is not installed.
        """
        if request is not None:
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
        if asked is not None and request.choice == AUTO:  # else a call is made in any case
            if asked.json_schema is None:
                raise ConfigurationError(
                    "a regex or a grammar and tools in one request: an answer that is no call can only follow a JSON "
                    "schema. Use json_schema, tool_choice='none', or a request of its own"
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


def require_room(model: CausalLM, prompt_ids: list[int], new_tokens: int) -> None:
    """Raise ContextOverflowError where the prompt and the longest answer exceed the model's context window."""
    if len(prompt_ids) + new_tokens > model.context_window:
        raise ContextOverflowError(
            model=model.name,
            prompt_tokens=len(prompt_ids),
            new_tokens=new_tokens,
            context_window=model.context_window,
        )
