"""The names that a chat template reads."""

import pytest

from rapid_integrations.models.template_names import names_of
from tests.toys import chat_templates
from tests.toys.models import CHATML


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (CHATML, set()),
        (chat_templates.QWEN25, set()),
        (chat_templates.LLAMA31, set()),
        (chat_templates.QWEN3, {"enable_thinking"}),
        (chat_templates.SMOLLM3, {"enable_thinking"}),
        (chat_templates.GPT_OSS, {"model_identity", "reasoning_effort"}),
        ("{% set thinking = thinking | default(false) %}{{ thinking }}{{ messages }}{{ bos_token }}", {"thinking"}),
        ("{% for x in messages %}{{ x }}{% if y %}{% break %}{% endif %}{% endfor %}{{ range(3) }}", {"y"}),
        ("{% set ns = namespace(a=1) %}{{ ns.a }}{{ strftime_now('%Y') }}{{ raise_exception('no') }}", set()),
        ("{% if y %}{% set x = 1 %}{% else %}{% set x = 2 %}{% endif %}{{ x }}", {"y"}),
        ("{% if y %}{% set x = 1 %}{{ x }}{% elif z %}{{ x }}{% endif %}", {"x", "y", "z"}),
        ("{% if y %}{% set x = 1 %}{{ x }}{% endif %}", {"y"}),
        ("{% if y %}{% set x = 1 %}{% endif %}{{ x }}", {"x", "y"}),
        ("{% for m in messages %}{% set x = m %}{{ x }}{{ loop.index }}{% endfor %}", set()),
        ("{% for m in messages if m != q %}{% set x = m %}{% else %}{{ p }}{% endfor %}{{ x }}", {"x", "q", "p"}),
        ("{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}{% set a, b = c %}{{ a }}{{ b }}", {"c", "d"}),
        ("{% macro f(a, b=c) %}{{ a }}{{ b }}{{ e }}{% endmacro %}{{ f(1) }}", {"c", "e"}),
        ("{% macro f() %}{{ caller() }}{% endmacro %}{% call(u) f() %}{{ u }}{{ w }}{% endcall %}", {"w"}),
        ("{% set x %}{{ y }}{% set z = 1 %}{% endset %}{{ x }}{{ z }}", {"y", "z"}),
        ("{% set ns = namespace(x=y) %}{% set ns.x = z %}{% set other.x = 1 %}", {"y", "z", "other"}),
        ("{% with a = b %}{{ a }}{% endwith %}{{ a }}", {"a", "b"}),
        ("{% filter upper %}{{ a }}{% set b = 1 %}{% endfilter %}{{ b }}", {"a", "b"}),
        (
            "{{ a if b is defined else c | default(d) }}{{ e[f] }}{{ g(h, i=j) }}{{ k ~ l }}{{ [m, {n: o}] }}",
            set("abcdefghjklmno"),
        ),
        ({"default": "{{ a }}", "tool_use": "{{ tools }}{{ b }}"}, {"a", "b"}),
    ],
)
def test_names(template, names):
    assert names_of(template) == names


def test_a_template_that_cannot_be_parsed_has_none_that_are_known():
    assert names_of("{% if %}") is None
    assert names_of({"default": "{{ a }}", "tool_use": "{% unknown %}"}) is None
