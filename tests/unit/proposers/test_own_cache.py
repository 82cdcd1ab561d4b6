"""Over which of its own rows the target drafts."""

from dataclasses import replace

from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.proposal import ProposerRequest, SelfDrafting
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.proposers.own_cache import sparse_drafter, sparse_rows
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, Penalties

DOCUMENT = [(7 * each) % 97 for each in range(900)]


def asked(drafter_ids, **options):
    rules = Rules(Law("target"), 100, Penalties(1.0, (), 100))
    settings = SelfDrafting(**{"sinks": 4, "recent": 100, **options})
    return ProposerRequest(DOCUMENT, drafter_ids, rules, DraftLengths.fixed(4), self_drafting=settings)


def test_the_first_and_the_last_rows_in_whole_tiles():
    rows = sparse_rows(asked(DOCUMENT))
    assert rows(900) == [(0, 64), (768, 960)]
    assert rows(900 + 200) == [(0, 64), (960, 1152)]  # they move with the answer
    assert rows(150) is None  # everything


def test_the_rows_of_retrieved_passages():
    unlike = [*range(1000, 1064)]  # the document repeats itself, so its first place counts
    document = [*unlike, *DOCUMENT[:300], *range(2000, 2100), *DOCUMENT[:500]]
    request = replace(asked([5, *range(2000, 2100), 6]), target_ids=document)
    assert sparse_rows(request)(len(document)) == [(0, 64), (320, 512), (832, 1024)]
    without = replace(request, self_drafting=SelfDrafting(sinks=4, recent=100, retrieved=False))
    assert sparse_rows(without)(len(document)) == [(0, 64), (832, 1024)]


def test_a_token_costs_the_weights_and_the_rows_that_are_seen():
    lm = TableLM(1, 100)
    reader = Reader(lm, DOCUMENT, 1000)
    run_alone(reader.prefill())
    drafter, cost = sparse_drafter(replace(asked(DOCUMENT), target=reader))
    assert cost == lm.weight_bytes + lm.kv_bytes_per_token * (64 + 192)
    rows = drafter.wants((), None)
    assert rows.cache.length == 64 + 899 - 768 and rows.cache.position == 899 and rows.count == 1
