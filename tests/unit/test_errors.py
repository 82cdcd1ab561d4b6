import pickle

import pytest

from rapid_integrations import SamplingParams, errors


@pytest.mark.parametrize("name", ["ConfigurationError", "PromptError", "ContextOverflowError", "IncompleteOutputError"])
def test_what_is_wrong_with_a_request_is_no_error_of_parsing(name):
    # Frameworks catch these to mean "the model's text could not be parsed", and go on without it.
    assert not issubclass(getattr(errors, name), (ValueError, TypeError, KeyError, IndexError, AttributeError))


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigurationError("no"),
        errors.DocumentError("a.pdf", "is damaged"),
        errors.ContextOverflowError(model="m", prompt_tokens=9, new_tokens=2, context_window=10),
        errors.MissingExtraError(feature="Reading a.pdf", extra="documents"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_a_process_boundary(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)


def test_a_wrong_nested_value_is_said_once():
    with pytest.raises(errors.ConfigurationError, match="StructuredOutput: .*exactly one"):
        SamplingParams(structured={"regex": "a", "grammar": "b"})
