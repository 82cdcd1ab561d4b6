"""docs/configuration.md, docs/command_line.md and docs/models.md are what the models, signatures and commands say."""

import importlib.util
import re

import pytest

from rapid_integrations.adapters.fields import ModelFields, RequestFields
from rapid_integrations.config import CompressionConfig, SpeculationConfig
from rapid_integrations.engine import plan
from rapid_integrations.proposers import PROPOSERS
from tests.toys.repository import ROOT

DOCS = ROOT / "docs"
SPEC = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("configuration.md", reference.configuration),
        ("command_line.md", reference.command_line),
        pytest.param("models.md", reference.models, marks=pytest.mark.slow),  # it imports every family of transformers
    ],
)
def test_the_reference_is_up_to_date(file, written):
    assert (DOCS / file).read_text() == written(), "run `make docs-reference`"
    assert "docs/make_reference.py" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("settings", [RequestFields, ModelFields, CompressionConfig], ids=lambda each: each.__name__)
def test_every_field_says_its_effect(settings):
    for name, field in settings.model_fields.items():
        assert field.description and len(field.description) > 12, name


def test_what_the_descriptions_name_is_so():
    fields = SpeculationConfig.model_fields
    etas = [value for name, value in vars(plan).items() if re.search(r"\bETA_|_ETA_", name)]
    assert len(etas) == 2
    for eta in etas:
        assert re.search(rf"\b{eta:g}\b", fields["eta"].description)
    assert {"auto", *PROPOSERS} == set(re.findall(r'"(\w+)"', fields["proposer"].description))


def test_every_environment_variable_is_listed():
    listed = " ".join(variable for variable, _ in reference.ENVIRONMENT)
    for folder in ("rapid_integrations", "llama_index_rapid", "langchain_rapid"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r'environ(?:\.get|\.setdefault)?[\[(]\s*"(\w+)"', path.read_text()):
                assert name in listed, f"{path.name} reads {name}"
