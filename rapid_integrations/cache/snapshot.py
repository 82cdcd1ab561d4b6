"""A snapshot of a KV cache, which another thread reads later while the cache is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class Snapshot:
    """The rows of a KV cache at the moment of `KVCache.snapshot`. Taking it copies nothing.

    The cache's owner may roll back and write new rows at any time, even while `pieces` is being read. Rows are
    overwritten only after a rollback, and the cache tells its snapshots of each rollback first. So `intact` says, after
    everything was read, how many of the first rows are unchanged. The reader checks it last.

    Attributes:
        length: number of rows of each layer.
        intact: number of rows that have not been rolled back since.
    """

    def __init__(self, buffers: Sequence[tuple[Tensor, Tensor]], length: int) -> None:
        self._buffers = list(buffers)  # own references: a cache that grows moves to other buffers and leaves these
        self.length = self.intact = length
        self._written: dict[torch.device, torch.cuda.Event] = {}  # the passes that wrote the rows, queued on a GPU
        for device in {keys.device for keys, _ in self._buffers if keys.device.type == "cuda"}:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._written[device] = event

    @property
    def layout(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, dtype and shape (1, H_kv, length, head_dim) of what `pieces` yields, in its order."""
        return [
            (f"{index}.{part}", rows.dtype, (*rows.shape[:2], self.length, rows.shape[3]))
            for index, layer in enumerate(self._buffers)
            for part, rows in zip(("key", "value"), layer, strict=True)
        ]

    def pieces(self) -> Iterator[bytes]:
        """Yield the rows' bytes, a head at a time, so that little is held twice."""
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
        # A stream of its own: the copy must not queue up with the next answer's passes.
        stream = torch.cuda.Stream(buffer.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            stream.wait_event(self._written[buffer.device])
            return buffer[:, :, : self.length].cpu()
