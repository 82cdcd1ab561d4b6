"""Methods by their names."""

import pytest

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.methods import METHODS, parse_method


def test_every_method_has_a_name():
    for name in METHODS:
        assert parse_method(name).name == parse_method(name).kind == name
    assert parse_method("lc").speculation.proposer == "none" and parse_method("lc").view == "whole"
    assert parse_method("sd").speculation.law == "target" and parse_method("sd").speculation.draft_length == 10
    assert parse_method("rag").view == "retrieved"


def test_options():
    method = parse_method("rapid:law=paper,eta=5,tail=restore,draft=4,context=unrelated,retrieved=512")
    assert method.speculation.model_dump(include={"law", "eta", "tail_rule", "draft_length"}) == {
        "law": "paper",
        "eta": 5.0,
        "tail_rule": "restore",
        "draft_length": 4,
    }
    assert method.unrelated and method.retrieved == 512
    assert parse_method("rapid:eta=2.5").speculation.eta == 2.5
    assert parse_method("rapid:proposer=prompt_lookup").speculation.proposer == "prompt_lookup"
    assert parse_method("rapid:law=augmented,chunks=target").speculation.chunk_cache == "target"
    assert parse_method("rapid:chunks=view").speculation.chunk_cache == "view"
    drafting = parse_method("speculative_rag:drafts=3,passages=4,rationale=written,retrieved=512")
    assert drafting.drafting.model_dump() == {
        "drafts": 3,
        "passages": 4,
        "rationale": "written",
        "rationale_tokens": 64,
    }
    assert drafting.retrieved == 512 and drafting.speculation.proposer == "none"
    sparse = parse_method("magicdec:sinks=8,recent=100")
    assert (sparse.speculation.draft_sinks, sparse.recent) == (8, 100) and not sparse.speculation.draft_retrieved


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lcc", "no method is called 'lcc'; there are: lc, rag"),
        ("lc:eta=1", "'eta=1' is not an option of lc; it has no options"),
        ("sd:eta=1", "it has draft"),
        ("rapid:eta", "'eta' is not an option"),
        ("rapid:eta=many", "eta"),
        ("rapid:law=exact", "law"),
        ("rapid:chunks=moved", "chunk_cache"),
        ("rapid:context=other", "context takes 'unrelated'"),
        ("rapid:retrieved=0", "at least 1"),
        ("magicdec:recent=x", "a number of tokens"),
    ],
)
def test_misspelt_methods(text, said):
    with pytest.raises(ConfigurationError, match=said):
        parse_method(text)
