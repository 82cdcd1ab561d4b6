import pytest

from rapid_integrations.models import block_linear


@pytest.fixture
def rows_packed_wrongly(monkeypatch):
    """Rows that a file has in another order than the model are put into panels in a wrong one."""
    pack = block_linear.pack

    def pack_wrongly(form, raw, out, order):
        pack(form, raw, out, None if order is None else order.roll(1))

    monkeypatch.setattr(block_linear, "pack", pack_wrongly)
