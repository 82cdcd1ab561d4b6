"""The suites of other projects that our classes are put through, and what each of them needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """The tests of one distribution.

    Attributes:
        distribution: what is tested, as pip calls it; its installed version decides over the tests' version.
        paths: which of its tests, relative to the folder that holds `tests`.
        checkout_folder: that folder in a checkout of its repository.
        install: module and arguments of `install`, which puts our classes in the fakes' place.
        repository, tag: where a person finds the tests if the source distribution has none; {version} is filled in.
        in_sdist: whether the source distribution holds the tests.
    """

    distribution: str
    paths: tuple[str, ...]
    checkout_folder: str
    install: tuple[str, ...]
    repository: str
    tag: str
    in_sdist: bool = True


SUITES = (
    Suite(
        "llama-index-core",
        paths=("tests",),
        checkout_folder="llama-index-core",
        install=("tests.hosts.llama_index_mocks",),
        repository="https://github.com/run-llama/llama_index",
        tag="v{version}",
        in_sdist=False,
    ),
    Suite(
        "langchain",
        paths=("tests/unit_tests/agents", "tests/unit_tests/chat_models"),
        checkout_folder="libs/langchain_v1",
        install=("tests.hosts.langchain_models", "tests.unit_tests.agents.model"),
        repository="https://github.com/langchain-ai/langchain",
        tag="langchain=={version}",
    ),
    Suite(
        "langgraph-prebuilt",
        paths=("tests",),
        checkout_folder="libs/prebuilt",
        install=("tests.hosts.langchain_models", "tests.model"),
        repository="https://github.com/langchain-ai/langgraph",
        tag="prebuilt=={version}",
    ),
)

# What the suites import that neither we nor the tested packages bring.
REQUIREMENTS = (
    "pytest-mock",
    "pytest-timeout",
    "syrupy",
    "toml",
    "blockbuster",
    "pandas",
    "openai",
    "llama-index-llms-openai",
    "langchain-openai",
    "langgraph-checkpoint-sqlite",
    "langgraph-checkpoint-postgres",
    "psycopg[binary]",
    "redis",
)


def suite_of(distribution: str) -> Suite:
    """Return the suite of a distribution."""
    return next(suite for suite in SUITES if suite.distribution == distribution)
