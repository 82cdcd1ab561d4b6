"""The tools of one request: their declarations, their place in the prompt, and their grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rapid_integrations.errors import ConfigurationError, MissingExtraError
from rapid_integrations.models.thinking_marks import Marks
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.outputs import InvalidToolCall, ToolCall
from rapid_integrations.sampling import Constraint
from rapid_integrations.tool_calls.behind_thinking import BehindThinking
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.call_stream import ToolCallStream
from rapid_integrations.tool_calls.declaration import declaration

if TYPE_CHECKING:
    from rapid_integrations.structured.schema import Enforceable

AUTO, NO_TOOLS, REQUIRED = "auto", "none", "required"


@dataclass(frozen=True)
class ToolRequest:
    """The tools that a request may call.

    Attributes:
        tools: the declarations, for the chat template.
        choice: "auto", "required", or a tool's name. ("none" makes no `ToolRequest`: the template gets no tools.)
        parallel: whether one answer may hold several calls. It holds one if a tool is named.
        call_format: the format of calls.
        marks: how the answer's thinking begins and ends; None if it is not told apart.
    """

    tools: tuple[Mapping[str, Any], ...]
    choice: str
    parallel: bool
    call_format: CallFormat
    marks: Marks | None = None

    @classmethod
    def check(
        cls, tools: Sequence[Mapping[str, Any]], choice: str, parallel: bool, call_format: CallFormat
    ) -> ToolRequest:
        """Return the request.

        Raises:
            ConfigurationError: a declaration is malformed, a name occurs twice, or the choice is not a tool.
        """
        declarations = [declaration(tool) for tool in tools]
        names = [each["function"]["name"] for each in declarations]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(f"two tools are called {min(twice)!r}: give each its own name")
        if choice not in (AUTO, REQUIRED, *names):
            raise ConfigurationError(
                f"tool_choice={choice!r} is not 'auto', 'none', 'required' or a tool's name ({', '.join(names)})"
            )
        # A function that is named is called once, as in OpenAI's API: a small model would call it until it is cut.
        return cls(tuple(declarations), choice, parallel and choice in (AUTO, REQUIRED), call_format)

    @cached_property
    def enforced(self) -> dict[str, Enforceable]:
        """The enforceable schema of each callable tool's arguments, by name."""
        from rapid_integrations.tool_calls.grammar import enforced_arguments

        return {name: enforced_arguments(self.call_format, name, each) for name, each in self.parameters.items()}

    @property
    def parameters(self) -> dict[str, Mapping[str, Any]]:
        """The JSON schema of each callable tool's arguments, by name."""
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in self.tools}
        return schemas if self.choice in (AUTO, REQUIRED) else {self.choice: schemas[self.choice]}

    @property
    def declarations(self) -> list[dict[str, Any]]:
        """The tools as the chat template gets them."""
        return [dict(tool) for tool in self.tools]

    def constraint(
        self, vocabulary: Vocabulary, vocab_size: int, answer: Enforceable | None = None
    ) -> Constraint | None:
        """Return the constraint of the calls' grammar, or None under "auto" without the extra `structured`.

        Args:
            vocabulary, vocab_size: see `GrammarConstraint`.
            answer: the schema of an answer without a call; None allows any text.

        Raises:
            MissingExtraError: a call or an answer by a schema is required, and llguidance is not installed.
            ConfigurationError: a tool's schema cannot be used.
        """
        from rapid_integrations.structured import GrammarConstraint
        from rapid_integrations.structured.library import lark_grammar, whole_tokens
        from rapid_integrations.tool_calls.grammar import tool_grammar

        feature = f"tool_choice={self.choice!r}"
        try:
            specials = whole_tokens(vocabulary, feature)
        except MissingExtraError:
            if self.choice == AUTO and answer is None:
                return None
            raise
        grammar = tool_grammar(
            self.call_format,
            self.enforced,
            specials,
            sorted(vocabulary.eos_token_ids),
            required=self.choice != AUTO,
            parallel=self.parallel,
            answer=answer,
        )
        constraint = GrammarConstraint(vocabulary, vocab_size, lark_grammar(grammar, feature), feature=feature)
        marks = self._thinking_first(answer is not None)
        return constraint if marks is None else BehindThinking(constraint, vocabulary, vocab_size, marks)

    def stream(self, answer: bool = False) -> ToolCallStream:
        """Return the stream that separates calls from text. `answer` says whether the text follows a schema."""
        required, marks = self.choice != AUTO, self._thinking_first(answer)
        return ToolCallStream(self.call_format, self.parameters, self.parallel, required, bare=not answer, marks=marks)

    def _thinking_first(self, answer: bool) -> Marks | None:
        """Return the marks of thinking that may stand before calls. An answer of a required form has none."""
        return None if answer or self.choice != AUTO else self.marks

    def checked(
        self, calls: Sequence[ToolCall], *, enforced: bool = True
    ) -> tuple[list[ToolCall], list[InvalidToolCall]]:
        """Return the calls whose arguments satisfy their schemas, and those whose arguments do not.

        Args:
            calls: the calls.
            enforced: whether the grammar was followed. Only the rules that it leaves out are checked then.
        """
        from rapid_integrations.structured.checking import unmet

        fine: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        for call in calls:
            unsure = not enforced or self.enforced[call.name].unenforced
            found = unmet(self.parameters[call.name], call.arguments) if unsure else []
            if found:
                arguments = json.dumps(call.arguments, ensure_ascii=False)
                error = f"its arguments do not satisfy their schema: {'; '.join(found)}"
                invalid.append(InvalidToolCall(name=call.name, arguments=arguments, error=error))
            else:
                fine.append(call)
        return fine, invalid

    def kept_tokens(self, vocabulary: Vocabulary) -> frozenset[int]:
        """Return the control tokens of the call format. The text must show them so that calls can be parsed."""
        written = self.call_format.written
        return frozenset(index for token, index in vocabulary.added_tokens.items() if token in written)


def with_arguments_as(messages: Sequence[Mapping[str, Any]], as_text: bool) -> list[dict[str, Any]]:
    """Return `messages` with the arguments of earlier tool calls in the template's form: text or a mapping.

    APIs give them either way. A template that writes a mapping as JSON would quote a text once more.
    """
    return [
        {**message, "tool_calls": [_call_with_arguments_as(call, as_text) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else dict(message)
        for message in messages
    ]


def _call_with_arguments_as(call: Mapping[str, Any], as_text: bool) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or "arguments" not in function:
        return dict(call)
    arguments = function["arguments"]
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    elif not as_text and isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            pass  # a model may have written anything; the template shows it unchanged
    return {**call, "function": {**function, "arguments": arguments}}
