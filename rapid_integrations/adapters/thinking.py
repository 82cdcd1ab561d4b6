"""What the framework packages need to tell an answer's thinking apart; see `rapid_integrations.models.thinking`."""

from rapid_integrations.models.thinking import Thinking
from rapid_integrations.models.thinking_marks import Marks, marks_of

__all__ = ["Marks", "Thinking", "marks_of"]
