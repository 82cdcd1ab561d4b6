"""Snapshots of a KV cache that another thread reads later while the cache stays in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class Snapshot:
    """The rows of a KV cache at the moment of `KVCache.snapshot`. Taking it copies nothing.

    The cache's owner may roll back and write new rows at any time, even while `pieces` is being read. Rows are only
    ever overwritten after a rollback, and the cache reports each rollback to its snapshots first. So after reading
    everything, `intact` says how many of the first rows are unchanged. The reader checks it last.

    Attributes:
        length: rows of each layer.
        intact: how many of the first rows have not been discarded since.
    """

    def __init__(self, buffers: Sequence[tuple[Tensor, Tensor]], length: int) -> None:
        self._buffers = list(buffers)  # these stay valid if the cache grows into new buffers
        self.length = self.intact = length
        self._written: dict[torch.device, torch.cuda.Event] = {}  # the passes that wrote the rows, queued on a GPU
        for device in {keys.device for keys, _ in self._buffers if keys.device.type == "cuda"}:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._written[device] = event

    @property
    def layout(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """The name, dtype and shape (1, H_kv, length, head_dim) of each tensor in `pieces`, in its order."""
        return [
            (f"{index}.{part}", rows.dtype, (*rows.shape[:2], self.length, rows.shape[3]))
            for index, layer in enumerate(self._buffers)
            for part, rows in zip(("key", "value"), layer, strict=True)
        ]

    def pieces(self) -> Iterator[bytes]:
        """Yield the rows' bytes one head at a time, so little is held twice."""
        for layer in self._buffers:
            for buffer in layer:
                rows = self._fetch(buffer)
                for head in rows.view(torch.uint8).numpy()[0]:
                    yield head[: self.length].tobytes()

    def _fetch(self, buffer: Tensor) -> Tensor:
        """Return (1, H_kv, >= length, head_dim) on the CPU."""
        if buffer.device.type == "cpu":
            return buffer
        if buffer.device.type != "cuda":
            return buffer[:, :, : self.length].cpu()
        # The copy has its own stream, so it does not queue behind the next answer's passes.
        stream = torch.cuda.Stream(buffer.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            stream.wait_event(self._written[buffer.device])
            return buffer[:, :, : self.length].cpu()
