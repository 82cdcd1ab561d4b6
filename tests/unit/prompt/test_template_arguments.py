"""Arguments of a chat template: names and JSON values, frozen."""

import copy
import pickle

import pytest

from rapid_integrations import ConfigurationError
from rapid_integrations.prompt import NO_ARGUMENTS, TemplateArguments
from rapid_integrations.prompt.template_arguments import RESERVED
from tests.toys.errors import coded


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_they_do_not_change_with_what_they_were_made_of():
    given = {"switch": False, "levels": ["low", {"deep": 1}]}
    arguments = TemplateArguments(given)
    given["levels"].append("high")
    given["more"] = 1
    arguments["levels"][1]["deep"] = 2
    arguments.as_dict()["switch"] = True
    assert arguments.as_dict() == {"levels": ["low", {"deep": 1}], "switch": False}
    assert len(arguments) == 2 and "switch" in arguments and "more" not in arguments
    assert arguments.texts() == ["levels", "low", "deep", "switch"]


def test_equal_ones_have_one_key_and_others_have_another():
    one = TemplateArguments({"a": 1, "b": {"y": 1, "x": 2}})
    assert one == TemplateArguments({"b": {"y": 1, "x": 2}, "a": 1}) and one == {"a": 1, "b": {"y": 1, "x": 2}}
    others = [{"a": True, "b": {"y": 1, "x": 2}}, {"a": 1, "b": {"x": 2, "y": 1}}, {"a": 1}, {"a": "1"}, {}]
    keys = {one.key, *(TemplateArguments(each).key for each in others)}
    assert len(keys) == 1 + len(others)  # True is not 1 for a template, and the order inside a value is read
    assert len({one, TemplateArguments(one), TemplateArguments({"a": 1})}) == 2


def test_those_of_a_request_stand_over_the_others():
    own = TemplateArguments({"switch": False, "level": "low"})
    assert own.overridden({"level": None, "more": (1, 2)}) == {"switch": False, "level": None, "more": [1, 2]}
    assert own.overridden(None) == own == own.overridden({})
    assert NO_ARGUMENTS.overridden(own) == own and not NO_ARGUMENTS


def test_what_is_within_bounds_stays_as_it_is():
    given = {"a": nested(31), "b": 2**63, "c": -1.5, "d": None}
    assert TemplateArguments(given).as_dict() == given


def test_they_travel():
    arguments = TemplateArguments({"switch": False})
    assert pickle.loads(pickle.dumps(arguments)) == copy.deepcopy(arguments) == copy.copy(arguments) == arguments


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_is_filled_in_cannot_be_given(name):
    with pytest.raises(ConfigurationError, match=f"cannot set '{name}'", check=coded("configuration.reserved_name")):
        TemplateArguments({name: "x"})


@pytest.mark.parametrize(
    "given",
    [
        "enable_thinking",
        ["enable_thinking"],
        {1: True},
        {"a": object()},
        {"a": {1: 2}},
        {"a": float("nan")},
        {"a": [float("inf")]},
        {"a": {"b"}},
        {"a": b"bytes"},
        {"a": nested(100_000)},
        {"a": nested(32)},
        {"a": 10**5000},
        {"a": [-(2**70)]},
    ],
    ids=lambda given: (
        "bounds" if isinstance(given, dict) and isinstance(given.get("a"), list | int) else f"{given!r:.20}"
    ),
)
def test_anything_but_json_is_refused(given):
    with pytest.raises(ConfigurationError, match="chat_template_kwargs", check=coded("configuration.wrong_value")):
        NO_ARGUMENTS.overridden(given)
