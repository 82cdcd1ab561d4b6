"""Judgements of short texts are made once, those of long texts each time."""

from __future__ import annotations

from rapid_integrations.prompt.segmentation.instructions import reads_as_instruction
from rapid_integrations.prompt.segmentation.remembered import remembered


class TestRemembered:
    def test_a_short_text_is_judged_once(self) -> None:
        seen = []

        def ends_in_a_colon(text: str) -> bool:
            """Whether a colon ends it."""
            seen.append(text)
            return text.endswith(":")

        judge = remembered(ends_in_a_colon)

        assert [judge(text) for text in ("Notes:", "Notes", "Notes:")] == [True, False, True]
        assert seen == ["Notes:", "Notes"]
        assert judge.__doc__ == "Whether a colon ends it."

    def test_a_long_text_is_not_kept(self) -> None:
        seen = []
        judge = remembered(lambda text: seen.append(text) or len(text))
        long = "x" * 100_000

        assert judge(long) == judge(long) == 100_000
        assert len(seen) == 2

    def test_the_longest_kept_text_has_the_judgement_of_the_shortest_that_is_not(self) -> None:
        for size in (1499, 1500, 1501):
            body = "Answer the question by the context. ".ljust(size, ".")
            assert reads_as_instruction(body) is reads_as_instruction(body) is True
