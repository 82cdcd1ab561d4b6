"""What the framework packages need to tell an answer's thinking apart; see `rapid_integrations.models.thinking`."""

from rapid_integrations.models.thinking import Thinking as Thinking
from rapid_integrations.models.thinking_marks import Marks as Marks
from rapid_integrations.models.thinking_marks import marks_of as marks_of
