"""Output that follows a grammar: llguidance says which tokens may come next. Needs the extra `structured`."""

from rapid_integrations.structured.grammar import grammar_of
from rapid_integrations.structured.matcher import GrammarConstraint

__all__ = ["GrammarConstraint", "grammar_of"]
