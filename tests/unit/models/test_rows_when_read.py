import sys
from pathlib import Path

import gguf
import pytest
import torch

from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.models import rows_when_read
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.rows_when_read import RowsWhenRead, TableWhenRead
from tests.toys.gguf_file import blocks

pytestmark = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


def table(rows=600, columns=64):
    form = FORMATS[int(gguf.GGMLQuantizationType.Q8_0)]
    raw = torch.from_numpy(blocks(torch.randn(rows, columns).numpy(), gguf.GGMLQuantizationType.Q8_0))
    return TableWhenRead(StoredBlocks(form, raw, None, lambda: None))


def test_rows_are_those_of_the_blocks_and_no_others_are_computed(monkeypatch):
    own = table()
    asked = []
    whole = rows_when_read.rows_of
    monkeypatch.setattr(rows_when_read, "rows_of", lambda *given: asked.append(given[2]) or whole(*given))
    own.rows.compute(torch.tensor([7, 3, 7]))
    own.rows.compute(torch.tensor([3, 9]))
    assert torch.cat(asked).tolist() == [3, 7, 9]
    expected = own.stored.rounded()
    assert torch.equal(own.rows.weight[[3, 7, 9]], expected[[3, 7, 9]])
    assert own.rows.weight.any(dim=1).sum() == 3
    own.rows.compute(torch.arange(600))
    assert torch.equal(own.rows.weight, expected)


def test_rows_are_no_parameters():
    """A digest of a model's weights does not depend on what it has read."""
    own = table()
    assert not list(own.rows.parameters()) and not list(own.rows.buffers()) and not own.rows.state_dict()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count what is reserved")
def test_a_table_takes_no_memory_before_it_is_read():
    memory = torch.frombuffer(rows_when_read._untouched(1 << 37), dtype=torch.bfloat16)  # 256 GB
    memory[-1] = 1
    assert memory.shape == (1 << 37,) and memory[-1] == 1 and memory[0] == 0


def test_other_systems_have_zeros_too(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert not any(rows_when_read._untouched(100)[:])
    assert own_of(table(), 1).computed == 0


def own_of(own, budget):
    return RowsWhenRead(own.stored, budget)


def resident(memory):
    """Return the bytes of a map that are in memory."""
    address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    lines = Path("/proc/self/smaps").read_text().splitlines()
    for at, line in enumerate(lines):
        first, _, last = line.split(" ")[0].partition("-")
        if last and int(first, 16) <= address < int(last, 16):
            return 1024 * next(int(each.split()[1]) for each in lines[at:] if each.startswith("Rss:"))
    raise AssertionError("no such map")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give nothing back")
@pytest.mark.parametrize("columns", [64, 1088, 4096])  # many rows of a page, rows across pages, rows of pages
def test_rows_beyond_the_budget_are_given_back_and_computed_again(columns):
    own = table(2000, columns)
    expected, row = own.stored.rounded(), 2 * columns
    rows, parts = own_of(own, 500 * row), torch.randperm(2000, generator=torch.Generator().manual_seed(1)).split(50)
    spans = rows._group * row  # of a row that was read, its group may be in memory
    for part in (*parts, *parts[:20], *torch.arange(2000).split(100)):
        rows.compute(part)
        assert torch.equal(rows.weight[part], expected[part])
        assert rows.computed == int(rows._there.sum()) <= 500
    rows.compute(torch.arange(400))
    assert torch.equal(rows.weight[:400], expected[:400])
    held = resident(rows._memory)
    assert held <= 500 * row + 2 * spans and 400 * row <= held


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give nothing back")
def test_rows_of_one_pass_are_all_there_whatever_the_budget_is():
    own = table(600, 2048)
    rows = own_of(own, 1)
    for ids in (torch.arange(600), torch.tensor([5, 5, 599]), torch.arange(300)):
        rows.compute(ids)
        assert torch.equal(rows.weight[ids], own.stored.rounded()[ids]) and rows.computed == len(set(ids.tolist()))
