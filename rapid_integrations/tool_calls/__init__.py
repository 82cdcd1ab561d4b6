"""Tool calling: what a model's chat template writes for a call is learnt from the template, read back and enforced."""

from rapid_integrations.tool_calls.call_format import CallFormat, learn_call_format
from rapid_integrations.tool_calls.call_stream import ToolCallStream
from rapid_integrations.tool_calls.parsing import parse_calls
from rapid_integrations.tool_calls.request import ToolRequest

__all__ = ["CallFormat", "ToolCallStream", "ToolRequest", "learn_call_format", "parse_calls"]
