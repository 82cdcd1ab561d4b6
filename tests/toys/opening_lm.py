"""A language model that begins its answer as it is told, and goes on at random."""

from collections.abc import Sequence

from torch import Tensor

from rapid_integrations.proposers.suite.table_model import TableLM


class OpeningLM(TableLM):
    """Behind `header` (the opening of an answer) it writes `opening`, token by token; then a table speaks."""

    def __init__(self, seed: int, vocab_size: int, header: Sequence[int], opening: Sequence[int]) -> None:
        super().__init__(seed, vocab_size)
        self._header, self._opening = list(header), list(opening)

    def read(self, token_ids, cache, keep) -> Tensor:
        logits = super().read(token_ids, cache, keep).clone()
        text = cache.layer(0)[0].flatten().tolist()
        for row in range(keep):
            read = text[: len(text) - keep + 1 + row]
            answer = self._answer(read)
            if answer is not None and len(answer) < len(self._opening) and self._opening[: len(answer)] == answer:
                logits[row, self._opening[len(answer)]] += 1000.0
        return logits

    def _answer(self, text: list[int]) -> list[int] | None:
        length = len(self._header)
        for start in range(len(text) - length, -1, -1):
            if text[start : start + length] == self._header:
                return text[start + length :]
        return None
