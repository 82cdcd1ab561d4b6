"""A conversation about documents that are prefilled once.

Every prompt starts with the documents, so only the rest is prefilled for each question (see
`rapid_integrations.cache.prefix_cache`). Both models read the earlier questions and answers. In place of the documents,
the drafter reads their retrieved chunks, which are chosen anew for each question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig
from rapid_integrations.engine.read_ahead import DocumentsLike, texts_and_names
from rapid_integrations.errors import ContextOverflowError, PromptError, RunningAnswer, SharedResource
from rapid_integrations.models.thinking import Thinking
from rapid_integrations.models.thinking_marks import marks_of
from rapid_integrations.outputs import Completion, CompletionChunk
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import DEFAULT_TEMPLATE, Message, Prompt, PromptLike, RenderedPrompt, TemplateArguments

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import CompletionStream, RapidEngine

_NO_QUESTION = "What is this about?"  # in place of the first question while the documents are prefilled


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: the question.
        answer: the answer, without thinking that can be told apart.
        complete: False if the answer was stopped before its end.
        reasoning: the thinking, which is given to chat templates that show it to the model.
    """

    question: str
    answer: str
    complete: bool = True
    reasoning: str = ""


class ChatAnswer(RunningAnswer, Iterator[CompletionChunk]):
    """A running answer. Iterate over it; close it (or leave its `with` block) to stop early.

    It joins the conversation when it ends. If it is stopped early, its text so far joins, unless that is blank.

    Attributes:
        question: the question that it answers.
        left_out: how many of the oldest turns left the conversation because they no longer fit.
    """

    def __init__(self, chat: Chat, question: str, stream: CompletionStream, left_out: int) -> None:
        self.question = question
        self.left_out = left_out
        self._chat = chat
        self._stream = stream
        self._chunks: list[CompletionChunk] = []
        self._recorded = False

    @property
    def text(self) -> str:
        """The answer's text so far."""
        return "".join(chunk.text for chunk in self._chunks)

    @property
    def completion(self) -> Completion:
        """The whole answer, once it has ended."""
        return Completion.join(self._chunks, self._stream.prepared.retrieved, self._stream.trace)

    def __next__(self) -> CompletionChunk:
        chunk = next(self._stream)
        self._chunks.append(chunk)
        if chunk.finish_reason is not None:
            self._record(complete=True)
        return chunk

    def close(self) -> None:
        """Stop the answer here; safe to call again."""
        self._stream.close()
        self._record(complete=False)

    def _record(self, complete: bool) -> None:
        if not self._recorded and self.text.strip():
            reasoning, answer = self._chat._told_apart(self.text, self._stream.prepared.target)
            self._chat._add(Turn(self.question, answer, complete, reasoning))
        self._recorded = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Chat(SharedResource):
    """Questions and answers about documents, on one engine.

    If the conversation no longer fits into the context window, its oldest turns leave it, and the answer says how
    many (`ChatAnswer.left_out`). Documents are never shortened. Do not share a chat between threads: asking the next
    question closes the running answer.

    Args:
        engine: should reuse prefixes (`RapidEngine.reuses_prefixes`). Otherwise each question prefills the documents.
        documents: their texts, or the results of `rapid_integrations.documents`. With several `Documents`, the prompt
            contains their names.
        sampling, speculation, compression: used instead of the engine's defaults.
        chat_template_kwargs: see `RapidEngine.stream`.

    A copy continues from the same turns on the same engine. A chat cannot be pickled.
    """

    _elsewhere = "build an engine and a Chat over the same documents (its `turns` can be pickled)"

    def __init__(
        self,
        engine: RapidEngine,
        documents: DocumentsLike,
        *,
        sampling: SamplingParams | None = None,
        speculation: SpeculationConfig | None = None,
        compression: CompressionConfig | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.engine = engine
        self._texts, self._names = texts_and_names(documents)
        self._sampling = sampling or engine.sampling
        self._speculation = speculation or engine.speculation
        self._compression = compression or engine.compression
        self._template_arguments = TemplateArguments(chat_template_kwargs)
        engine.vocabulary.require_arguments(self._template_arguments)
        self._turns: tuple[Turn, ...] = ()
        self._answer: ChatAnswer | None = None
        self._first_prompt(_NO_QUESTION)  # refuses empty documents

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        vars(made).update(vars(self), _answer=None)  # the running answer stays with the original
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation as the next question will see it, the oldest turn first."""
        return self._turns

    def read(self, on_progress: OnProgress | None = None) -> int:
        """Prefill the documents before the first question; return the number of prefilled target tokens.

        Raises:
            ContextOverflowError: the documents do not fit.
        """
        stream = self._stream((), _NO_QUESTION, trace=False, on_progress=on_progress)  # embeds them
        tokens = len(stream.prepared.target_ids)
        stream.close()
        if self.engine.reuses_prefixes:
            self.engine.read(
                self._texts,
                prompt=lambda _, question: self._prompt((), question),
                compression=self._compression,
                chat_template_kwargs=self._template_arguments,
                on_progress=on_progress,
            )
        return tokens

    def ask(self, question: str, *, trace: bool = False, on_progress: OnProgress | None = None) -> ChatAnswer:
        """Answer `question` piece by piece. Errors of the request are raised here, before the first piece.

        Raises:
            ContextOverflowError: the question does not fit even without the earlier turns. The turns then stay.
            PromptError: the question is empty.
        """
        if not question.strip():
            raise PromptError("the question is empty", code="empty_question")
        if self._answer is not None:
            self._answer.close()
        turns = self._turns
        while True:
            try:
                stream = self._stream(turns, question, trace=trace, on_progress=on_progress)
                break
            except ContextOverflowError:
                if not turns:
                    raise
                turns = turns[1:]
        left_out = len(self._turns) - len(turns)
        self._turns = turns
        self._answer = ChatAnswer(self, question, stream, left_out)
        return self._answer

    def forget(self) -> None:
        """Start a new conversation about the same documents."""
        if self._answer is not None:
            self._answer.close()
        self._turns = ()

    def _told_apart(self, text: str, prompt: RenderedPrompt) -> tuple[str, str]:
        """Return the thinking in an answer's text, and the rest of it."""
        marks = marks_of(self.engine.vocabulary, prompt) if self._sampling.structured is None else None
        thinking, chunk = Thinking(marks).part(CompletionChunk(text=text, token_ids=(), finish_reason="eos"))
        return thinking, chunk.text

    def _add(self, turn: Turn) -> None:
        self._turns = (*self._turns, turn)

    def _stream(self, turns: Sequence[Turn], question: str, **options: Any) -> CompletionStream:
        return self.engine.stream(
            self._prompt(turns, question),
            sampling=self._sampling,
            speculation=self._speculation,
            compression=self._compression,
            chat_template_kwargs=self._template_arguments,
            **options,
        )

    def _prompt(self, turns: Sequence[Turn], question: str) -> PromptLike:
        first = self._first_prompt(turns[0].question if turns else question)
        # A question such as "And why?" says little by itself, so retrieval also gets the question before it.
        query = f"{turns[-1].question}\n{question}" if turns else question
        later = [*(turn.question for turn in turns[1:]), question] if turns else []
        answers = [turn.answer for turn in turns]
        if self.engine.vocabulary.chat_template is None:  # a base model continues the text
            rest = "".join(
                f" {answer.strip()}\n\nQuestion: {asked}\nAnswer:" for answer, asked in zip(answers, later, strict=True)
            )
            return Prompt(text=first.text + rest, context_spans=first.context_spans, query=query)
        messages: list[Message] = [
            {"role": "user", "content": Prompt(text=first.text, context_spans=first.context_spans, query=query)}
        ]
        for turn, asked in zip(turns, later, strict=True):
            answered = {"role": "assistant", "content": turn.answer}
            reasoned = {"reasoning_content": turn.reasoning} if turn.reasoning else {}
            messages += [{**answered, **reasoned}, {"role": "user", "content": asked}]
        return messages

    def _first_prompt(self, question: str) -> Prompt:
        return Prompt.from_context(self._texts, question, DEFAULT_TEMPLATE, names=self._names)
