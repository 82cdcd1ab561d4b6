import sys

import gguf
import pytest
import torch

from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.models import rows_when_read
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.rows_when_read import TableWhenRead
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
    memory = rows_when_read._untouched(1 << 37)  # 256 GB
    memory[-1] = 1
    assert memory.shape == (1 << 37,) and memory[-1] == 1 and memory[0] == 0


def test_other_systems_have_zeros_too(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert not rows_when_read._untouched(100).any()
