"""docs/configuration.md, docs/command_line.md and docs/models.md are what the models, signatures and commands say."""

import re

import pytest

from docs.make_reference import PAGES
from docs.reference.environment import ENVIRONMENT
from rapid_integrations.adapters.fields import ModelFields, RequestFields
from rapid_integrations.config import CompressionConfig, SpeculationConfig
from rapid_integrations.engine import plan
from rapid_integrations.proposers import PROPOSERS
from tests.toys.repository import ROOT

DOCS = ROOT / "docs"


SLOW = ("models.md",)  # it imports every family of transformers


@pytest.mark.parametrize("file", [pytest.param(each, marks=[pytest.mark.slow] * (each in SLOW)) for each in PAGES])
def test_the_reference_is_up_to_date(file):
    assert (DOCS / file).read_text() == PAGES[file](), "run `make docs-reference`"
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
    listed = " ".join(variable for variable, _ in ENVIRONMENT)
    for folder in ("rapid_integrations", "llama_index_rapid", "langchain_rapid"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r'environ(?:\.get|\.setdefault)?[\[(]\s*"(\w+)"', path.read_text()):
                assert name in listed, f"{path.name} reads {name}"
