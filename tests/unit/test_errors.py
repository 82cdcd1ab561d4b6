import copy
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
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_a_kind_of_a_public_error_is_called_by_its_name():
    class PrivateError(errors.DocumentError):
        pass

    assert errors.public_name(PrivateError("a.txt", "is empty")) == "DocumentError"
    assert errors.public_name(errors.CacheError()) == "CacheError"
    assert errors.public_name(errors.RapidError()) == "RapidError"


def test_a_wrong_nested_value_is_said_once():
    with pytest.raises(errors.ConfigurationError, match="StructuredOutput: .*exactly one"):
        SamplingParams(structured={"regex": "a", "grammar": "b"})


# Programs compare them: a code may be added, and none may change.
CODES = {
    "CacheError": "cache",
    "ConfigurationError": "configuration",
    "ContextOverflowError": "context_overflow",
    "DocumentError": "document",
    "DownloadError": "download",
    "EngineClosedError": "engine_closed",
    "ForkedProcessError": "forked_process",
    "HostPartError": "host_part",
    "IncompleteOutputError": "incomplete_output",
    "MissingExtraError": "missing_extra",
    "ModelLoadError": "model_load",
    "NotANumberError": "not_a_number",
    "NotPicklableError": "not_picklable",
    "OutOfMemoryError": "out_of_memory",
    "PromptError": "prompt",
    "RapidError": "rapid",
    "RemoteError": "remote",
    "UnsupportedModelError": "unsupported_model",
    "VocabularyMismatchError": "vocabulary_mismatch",
}


def test_every_class_has_its_code():
    assert {name: getattr(errors, name).code for name in errors.__all__} == CODES


@pytest.mark.parametrize("kind", [errors.CacheError, errors.OutOfMemoryError, errors.NotPicklableError])
def test_a_finer_code_says_which_of_several_and_survives_a_process_boundary(kind):
    error = kind("the message", code="full")
    for each in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (each.code, str(each)) == (f"{kind.code}.full", "the message")
    assert kind("another").code == kind.code
