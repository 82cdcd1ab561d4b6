"""Chat templates that write only a part of a conversation with calls, in the layouts of published ones."""

from tests.toys.call_templates import written_calls

_TURN = "{{- '<|im_start|>' + ROLE + '\\n' + TEXT + '<|im_end|>\\n' }}"
_FRAME = """{%- if tools %}{{- '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}EACH{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def _turn(role="message.role", text="message.content"):
    return _TURN.replace("ROLE", role).replace("TEXT", text)


# LFM2 and Granite 3.3: tools are shown, calls are not
SILENT = _FRAME.replace("EACH", _turn())
# LFM2.5: of an earlier answer only what stands behind its thinking
BEHIND_THINKING = _FRAME.replace("EACH", _turn(text="message.content.split('</think>')[-1]"))
# SmolLM3: no tools are shown, and a result is a user's message
DEAF = _FRAME.replace("{%- if tools %}", "{%- if false %}").replace(
    "EACH", _turn("('user' if message.role == 'tool' else message.role)")
)
# Phi-3.5: nothing but these roles
THREE_ROLES = DEAF.replace(
    "{%- for message in messages %}",
    "{%- for message in messages if message.role in ['system', 'user', 'assistant'] %}",
)
# GigaChat: the first call alone, in place of the text
FIRST_ALONE = _FRAME.replace(
    "EACH",
    "{%- if message.tool_calls %}{%- set call = message.tool_calls[0].function %}"
    + _turn(text="'<|function_call|>{\"name\": \"' + call.name + '\", \"arguments\": ' + call.arguments | tojson + '}'")
    + "{%- else %}"
    + _turn()
    + "{%- endif %}",
)
# Command: a text is a part of its own, which a call replaces
PARTS = _FRAME.replace(
    "EACH",
    "{%- if message.tool_calls %}"
    "{{- '<|im_start|>assistant\\n<ACTION>[' }}"
    "{%- for call in message.tool_calls %}"
    "{{- '{\"name\": \"' + call.function.name + '\", \"parameters\": ' + call.function.arguments | tojson + '}' }}"
    "{{- '' if loop.last else ', ' }}"
    "{%- endfor %}"
    "{{- ']</ACTION><|im_end|>\\n' }}"
    "{%- elif message.role == 'assistant' %}"
    + _turn(text="'<RESPONSE>' + message.content + '</RESPONSE>'")
    + "{%- else %}"
    + _turn()
    + "{%- endif %}",
)
# Mistral: what is said beside calls is left out, and two answers in a row are refused
ALTERNATING = _FRAME.replace(
    "EACH",
    "{%- if message.role == 'assistant' and loop.previtem is defined and loop.previtem.role == 'assistant' %}"
    "{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{%- if message.tool_calls %}"
    "{{- '<|im_start|>assistant\\n[TOOL_CALLS][' }}"
    "{%- for call in message.tool_calls %}"
    "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' + (']' if loop.last else ', ') }}"
    "{%- endfor %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- else %}" + _turn() + "{%- endif %}",
)
# Qwen3: a content has to be there
NEEDS_CONTENT = written_calls("{{- '\\n<tool_call>\\n' + call | tojson + '\\n</tool_call>' }}").replace(
    "(message.content or '')", "message.content"
)
# Functionary 3.2: arguments are a text, and a call begins with its name
TEXT_ARGUMENTS = written_calls("{{- '>>>' + call.name + '\\n' + call.arguments }}")
