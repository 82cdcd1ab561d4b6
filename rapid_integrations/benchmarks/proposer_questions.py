"""Questions of each kind over texts that every installation has: this package's own code and its descriptions."""

from __future__ import annotations

import inspect
from importlib import import_module

from rapid_integrations.evaluation.questions import Question

_CODE = "rapid_integrations.decoding.draft_length"
_PROSE = ("rapid_integrations.config", "rapid_integrations.outputs")


def built_in_questions() -> list[Question]:
    """Return two questions that ask for a quotation, two for an answer in free words, and two for code."""
    code = inspect.getsource(import_module(_CODE))
    prose = "\n\n".join(
        f"{name}\n{inspect.cleandoc(each.__doc__)}"
        for module in map(import_module, _PROSE)
        for name, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and each.__doc__
    )
    return [
        Question(prose, "Repeat the description of SpeculationConfig word for word.", "quote"),
        Question(code, "Repeat the docstring of the class CostModel word for word.", "quote"),
        Question(prose, "What are these settings for? Explain it in your own words.", "free"),
        Question(code, "How is the number of tokens to draft chosen? Explain it in your own words.", "free"),
        Question(code, "Write the class FixedDraftLength again, with a second argument `least`.", "code"),
        Question(code, "Write the method LinearCost.observe again, with the comments left out.", "code"),
    ]
