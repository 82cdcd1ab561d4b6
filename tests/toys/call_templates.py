"""Chat templates whose calls are written as the models of 2026 write them. What stands around calls is ChatML's."""

_FRAME = """{%- if tools %}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
    {%- if message.tool_calls %}
        {{- 'BEFORE' }}
        {%- for call in message.tool_calls %}{%- set call = call.function %}CALL{%- endfor %}
        {{- 'AFTER' }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def written_calls(call, before="", after=""):
    return _FRAME.replace("CALL", call).replace("BEFORE", before).replace("AFTER", after)


def _one_by_one(value):
    """Return the loop over a call's arguments. `value` writes one: it reads `name` and `value`."""
    return "{%- for name, value in call.arguments | items %}" + value + "{%- endfor %}"


_AS_JSON = "(value if value is string else value | tojson)"
_STRINGS = "(value | tojson if value is mapping or (value is sequence and value is not string) else value | string)"

# Qwen3-Coder, Qwen3.5, Nemotron 3, Step 3.5
CODER = written_calls(
    "{{- '\\n<tool_call>\\n<function=' + call.name + '>\\n' }}"
    + _one_by_one("{{- '<parameter=' + name + '>\\n' + " + _STRINGS + " + '\\n</parameter>\\n' }}")
    + "{{- '</function>\\n</tool_call>' }}"
)
# GLM-4.5 and 4.6, Ling, Laguna
GLM = written_calls(
    "{{- '\\n<tool_call>' + call.name + '\\n' }}"
    + _one_by_one(
        "{{- '<arg_key>' + name + '</arg_key>\\n<arg_value>' + " + _AS_JSON + " + '</arg_value>\\n' }}",
    )
    + "{{- '</tool_call>' }}"
)
# GLM-4.7: without line breaks
GLM47 = GLM.replace("'\\n<tool_call>'", "'<tool_call>'").replace("call.name + '\\n' }}", "call.name }}")
GLM47 = GLM47.replace("</arg_key>\\n", "</arg_key>").replace("</arg_value>\\n", "</arg_value>")
MINIMAX = written_calls(
    "{{- '<invoke name=\"' + call.name + '\">\\n' }}"
    + _one_by_one("{{- '<parameter name=\"' + name + '\">' + " + _AS_JSON + " + '</parameter>\\n' }}")
    + "{{- '</invoke>\\n' }}",
    "\\n<minimax:tool_call>\\n",
    "</minimax:tool_call>",
)
SEED = written_calls(
    "{{- '\\n<seed:tool_call>\\n<function=' + call.name + '>\\n' }}"
    + _one_by_one("{{- '<parameter=' + name + '>' + value | string + '</parameter>\\n' }}")
    + "{{- '</function>\\n</seed:tool_call>' }}"
)
# DeepSeek V3.2: a mark says whether a string follows
DSML = written_calls(
    "{{- '<｜DSML｜invoke name=\"' + call.name + '\">\\n' }}"
    + _one_by_one(
        "{{- '<｜DSML｜parameter name=\"' + name + '\" string=\"' + ('true' if value is string else 'false') + '\">' + "
        + _AS_JSON
        + " + '</｜DSML｜parameter>\\n' }}"
    )
    + "{{- '</｜DSML｜invoke>\\n' }}",
    "\\n\\n<｜DSML｜function_calls>\\n",
    "</｜DSML｜function_calls>",
)
# DeepSeek V3.1, with marks that begin alike
DEEPSEEK = written_calls(
    "{{- '<｜tool▁call▁begin｜>' + call.name + '<｜tool▁sep｜>' + call.arguments | tojson + '<｜tool▁call▁end｜>' }}",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
)
KIMI = written_calls(
    "{{- '<|tool_call_begin|>functions.' + call.name + ':' + loop.index0 | string + '<|tool_call_argument_begin|>' }}"
    "{{- call.arguments | tojson + '<|tool_call_end|>' }}",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
)
# The id alone, which holds the name
KIMI_BY_ID = (
    KIMI.replace("{%- set call = call.function %}", "")
    .replace("functions.' + call.name + ':' + loop.index0 | string + '", "' + call.id + '")
    .replace("call.arguments", "call.function.arguments")
)
# Mistral Small 3.2: the id before the arguments
SMALL = written_calls(
    "{{- '[TOOL_CALLS]' + call.function.name + '[CALL_ID]' + call.id + '[ARGS]' + call.function.arguments | tojson }}"
).replace("{%- set call = call.function %}", "")
# Command R7B: calls are numbered before their names
COMMAND = written_calls(
    '{{- \'\\n    {"tool_call_id": "\' + loop.index0 | string + \'", "tool_name": "\' + call.name + \'", \' }}'
    "{{- '\"parameters\": ' + call.arguments | tojson + '}' + ('' if loop.last else ',') }}",
    "<|START_ACTION|>[",
    "\\n]<|END_ACTION|>",
)
# LFM2.5: calls of Python
LIQUID = written_calls(
    "{{- call.name + '(' }}"
    "{%- for name, value in call.arguments | items %}"
    "{{- name + '=' + (\"'\" + value + \"'\" if value is string else value | tojson) + ('' if loop.last else ', ') }}"
    "{%- endfor %}"
    "{{- ')' + ('' if loop.last else ', ') }}",
    "<|tool_call_start|>[",
    "]<|tool_call_end|>",
)
# Gemma 4: literals with quotation marks of their own, sorted by name
GEMMA4 = """{%- macro literal(value) -%}
    {%- if value is string %}{{- '<|"|>' + value + '<|"|>' }}
    {%- elif value is boolean %}{{- 'true' if value else 'false' }}
    {%- elif value is mapping %}
        {{- '{' }}
        {%- for name, each in value | dictsort %}
            {{- name + ':' + literal(each) + ('' if loop.last else ',') }}
        {%- endfor %}
        {{- '}' }}
    {%- elif value is sequence %}
        {{- '[' }}{%- for each in value %}{{- literal(each) + ('' if loop.last else ',') }}{%- endfor %}{{- ']' }}
    {%- else %}{{- 'null' if value is none else value }}{%- endif %}
{%- endmacro -%}
""" + written_calls("{{- '<|tool_call>call:' + call.name + literal(call.arguments) + '<tool_call|>' }}")
# Functionary: a call begins with its name
NAME_FIRST = written_calls("{{- call.name + '\\n' + call.arguments | tojson }}")
# Kimi-K3: every type of value has a mark of its own
TYPED = written_calls(
    "{{- '<call ' + call.name + '>' }}"
    + _one_by_one(
        "{%- set type = 'string' if value is string else 'number' if value is number else 'object' %}"
        "{{- '<' + name + ' ' + type + '>' + " + _AS_JSON + " + '</>' }}"
    )
    + "{{- '</call>' }}"
)
# GPT-OSS: an answer consists of channels, and the template writes calls otherwise than the model
HARMONY = """{%- if tools %}{{- '<|start|>developer<|message|>' + (tools | tojson) + '<|end|>' }}{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- if message.tool_calls %}
            {%- set call = message.tool_calls[0].function %}
            {{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
            {{- call.arguments | tojson + '<|call|>' }}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if message.thinking %}
                {{- '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}
            {%- endif %}
            {{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|return|>' }}
        {%- else %}{{- '<|start|>assistant<|channel|>final<|message|>' + message.content + '<|end|>' }}{%- endif %}
    {%- else %}{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}
"""
HARMONY_TOKENS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>")
