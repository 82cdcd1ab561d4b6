"""Generated retrieval tasks of any length: a needle in a report, and several facts scattered over it.

The text around the facts consists of similar sentences about other things, so that a fact does not stand out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from rapid_integrations.evaluation.metrics import fact_recall
from rapid_integrations.evaluation.tasks.base import CountTokens, Item

_FIRST = (
    "Ada Bruno Celia Dario Edda Felix Greta Hugo Ines Jonas Klara Leon Mira Nils Olga Pavel Rosa Sven Tilda Ugo Vera "
    "Willem Xenia Yara Zeno Aline Boris Carla Dmitri Elena Fabio Gerda Harald Irma Jakob Katja Lars Maren Nora Oskar"
).split()
_LAST = (
    "Abel Berg Conti Dahl Engel Fischer Grieg Holm Iversen Janssen Kovac Lund Moreau Novak Olsen Petrov Quist Rossi "
    "Sato Thorsen Ulrich Vogel Weiss Yilmaz Zoric Amsel Brandt Castro Duval Ekman"
).split()
_TOWNS = (
    "Port Sarne, Velden, Old Karsk, Brimley, Torvik, Santa Lira, Eastmoor, Kalden, Novigrad, Fenwick, Marrow Bay, Tulle"
).split(", ")
_THINGS = (
    "the ferry timetable, the heating of the town hall, the archive's roof, the harvest forecast, the school bus, "
    "the new bridge, the water meters, the library's opening hours, the harbour dues, the street lamps"
).split(", ")
_VERBS = "discussed, postponed, approved, reviewed, questioned, inspected, measured, described".split(", ")
_ENDS = (
    "and asked for a second opinion, without coming to a decision, and noted the costs, as in the year before, "
    "because the weather had changed, and thanked everyone who had helped, before the summer began"
).split(", ")
_FACTS = (
    ("keeps locker {}", "locker", 1000, 9999),
    ("was given the badge {}", "badge", 1000, 9999),
    ("parks in bay {}", "parking bay", 100, 999),
    ("has the telephone extension {}", "telephone extension", 2000, 8999),
)
_MARGIN = 16  # tokens below the requested length


class Facts:
    """Facts about people, scattered over a report. Each question asks for `per_question` of them.

    The scores are "recall", the share of the facts in the answer (shown in tables), and "all", whether the answer has
    all of them. A needle is the case of one fact.

    Args:
        name: name of the task.
        per_question: number of facts that a question asks for.
        number: number of documents.
        questions: number of questions per document.
        seed: random seed. Seed, length and tokenizer determine the documents.
    """

    metric = "recall"

    def __init__(self, name: str, per_question: int, number: int = 8, questions: int = 4, seed: int = 0) -> None:
        self.name = name
        self._per_question = per_question
        self._number = number
        self._questions = questions
        self._seed = seed

    def documents(self, context_tokens: int, count_tokens: CountTokens) -> Iterator[Sequence[Item]]:
        """See `Task.documents`."""
        for number in range(self._number):
            yield self._items(number, random.Random(f"{self._seed} {number}"), context_tokens, count_tokens)

    def score(self, item: Item, answer: str) -> dict[str, float]:
        """See `Task.score`."""
        recall = fact_recall(answer, item.references)
        return {"recall": recall, "all": float(recall == 1.0)}

    def _items(self, number: int, rng: random.Random, context_tokens: int, count: CountTokens) -> list[Item]:
        people = rng.sample([f"{first} {last}" for first in _FIRST for last in _LAST], 200)
        wanted, others = people[:100], people[100:]
        told: list[tuple[str, str, str, str]] = []  # person, sentence, subject of the question, answer
        used: set[str] = set()
        for person in wanted[: self._questions * self._per_question]:
            fact, asked, low, high = rng.choice(_FACTS)
            value = next(v for v in iter(lambda: str(rng.randint(low, high)), "") if v not in used)  # noqa: B023
            used.add(value)
            told.append((person, f"{person} {fact.format(value)}.", asked, value))
        document = self._report([sentence for _, sentence, _, _ in told], others, rng, context_tokens, count)
        return [
            self._item(number, question, document, told[question :: self._questions])
            for question in range(self._questions)
        ]

    def _item(self, number: int, question: int, document: str, asked: Sequence[tuple[str, str, str, str]]) -> Item:
        if len(asked) == 1:
            (person, _, what, _), *_ = asked
            ask = f"What is the number of the {what} of {person}? Answer with one sentence."
        else:
            ask = "; ".join(f"the {what} of {person}" for person, _, what, _ in asked)
            ask = f"Give all of the following numbers: {ask}. Write one full sentence about each person."
        return Item(
            id=f"{self._seed}.{number}.{question}",
            document_id=str(number),
            document=document,
            before="Read the following report.\n\n",
            after=f"\n\nEnd of the report. {ask}",
            query=ask,
            references=tuple(value for _, _, _, value in asked),
            max_new_tokens=16 + 24 * len(asked),
        )

    def _report(
        self, facts: list[str], others: Sequence[str], rng: random.Random, tokens: int, count: CountTokens
    ) -> str:
        """Return about `tokens` tokens of sentences, `facts` at random places among them, in paragraphs."""
        filler = [self._sentence(others, rng) for _ in range(32)]
        each = count(" ".join(filler)) / len(filler)
        spare = tokens - _MARGIN - count(" ".join(facts))
        filler += [self._sentence(others, rng) for _ in range(int(spare / each))]
        lines = filler[: max(0, int(spare / each))]
        while lines and count(text := self._place(lines, facts, random.Random(rng.random()))) > tokens:
            lines = lines[: int(len(lines) * 0.98)]
        return text if lines else self._place([], facts, rng)

    def _place(self, filler: Sequence[str], facts: Sequence[str], rng: random.Random) -> str:
        # One fact in each part of equal length, so that the facts of a question are far apart.
        lines = list(filler)
        for index in reversed(range(len(facts))):
            stretch = len(filler) / len(facts)
            lines.insert(int((index + rng.random()) * stretch), facts[index])
        paragraphs = [" ".join(lines[start : start + 6]) for start in range(0, len(lines), 6)]
        return "\n\n".join(paragraphs)

    def _sentence(self, people: Sequence[str], rng: random.Random) -> str:
        person, town = rng.choice(people), rng.choice(_TOWNS)
        kind = rng.random()
        if kind < 0.3:
            fact, _, low, high = rng.choice(_FACTS)
            return f"{person} {fact.format(rng.randint(low, high))}."
        if kind < 0.7:
            verb = rng.choice(_VERBS)
            return f"The council of {town} {verb} {rng.choice(_THINGS)} {rng.choice(_ENDS)}."
        return f"{person} of {town} {rng.choice(_VERBS)} {rng.choice(_THINGS)} {rng.choice(_ENDS)}."
