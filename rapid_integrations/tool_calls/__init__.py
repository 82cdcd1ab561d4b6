"""Tool calling: the format of a call is read from the chat template, parsed in answers and enforced."""

from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.call_stream import ToolCallStream
from rapid_integrations.tool_calls.learning import learn_call_format
from rapid_integrations.tool_calls.parsing import parse_calls
from rapid_integrations.tool_calls.request import ToolRequest

__all__ = ["CallFormat", "ToolCallStream", "ToolRequest", "learn_call_format", "parse_calls"]
