"""Prompts with the truth about them: a layout, a document, a question, and what a segmentation of it must be."""

import random
from dataclasses import dataclass

from rapid_integrations.prompt.segmentation import segment
from tests.unit.prompt.segmentation.documents import KINDS, document
from tests.unit.prompt.segmentation.layouts import LAYOUTS, QUESTIONS


@dataclass(frozen=True)
class Case:
    """A prompt and what it was made of."""

    name: str
    text: str
    document: str
    question: str
    start: int  # of the document in the text

    def verdict(self):
        """Return "right", "plain", or what is wrong with the segmentation of the text."""
        return self.verdict_on(segment(self.text))

    def verdict_on(self, found):
        if not found.context_spans:
            return "plain"
        if " ".join(found.query.split()) != " ".join(self.question.split()):
            return f"query: {found.query[:200]!r}"
        end = self.start + len(self.document)
        covered = 0
        for start, stop in found.context_spans:
            if start < self.start or stop > end:
                outside = self.text[start : self.start] if start < self.start else self.text[end:stop]
                if outside.strip():
                    return f"beyond the document: {outside.strip()[:120]!r} ... {outside.strip()[-120:]!r}"
            covered += min(stop, end) - max(start, self.start)
        if covered < 0.8 * len(self.document.strip()):
            return f"only {covered} of {len(self.document)} characters"
        return "right"


def fill(name, layout, text, question):
    before = layout[: layout.index("{context}")].replace("{question}", question)
    whole = before + text + layout[layout.index("{context}") + len("{context}") :].replace("{question}", question)
    return Case(name, whole, text, question, len(before))


def case(seed, layouts=LAYOUTS):
    """Return the prompt of this number: the same one each time."""
    rng = random.Random(seed)
    name = rng.choice(sorted(layouts))
    kind = rng.choice(sorted(KINDS))
    made = fill(
        f"{name} / {kind}", layouts[name], document(kind, seed, rng.choice((2200, 3500, 9000))), rng.choice(QUESTIONS)
    )
    if rng.random() < 0.15:  # Windows
        return fill(
            made.name + " / CRLF",
            layouts[name].replace("\n", "\r\n"),
            made.document.replace("\n", "\r\n"),
            made.question,
        )
    return made
