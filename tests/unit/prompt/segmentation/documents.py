"""Documents of many kinds, each with what makes it hard for somebody who looks for a prompt's parts."""

import random

TOPICS = "pump valve ledger harbour orchard turbine archive reactor glacier bakery tunnel mill quarry ferry kiln loom".split()
NAMES = (
    "Adler Brandt Costa Duval Eriksen Fontana Grey Haas Ibsen Jansen Keller Lindt Moreau Novak Okafor Petrov".split()
)


def _prose(rng, size):
    parts, total = [], 0
    while total < size:
        sentences = [
            f"{rng.choice(NAMES)} inspected the {rng.choice(TOPICS)} in {rng.randint(1900, 2020)} and wrote that it had "
            f"{rng.randint(2, 90)} parts.",
            f"The {rng.choice(TOPICS)} near the {rng.choice(TOPICS)} belonged to {rng.choice(NAMES)} for "
            f"{rng.randint(2, 60)} years.",
            f"Nobody had expected the {rng.choice(TOPICS)} to cost {rng.randint(100, 9999)} crowns.",
            f"Its owner, {rng.choice(NAMES)}, sold it to {rng.choice(NAMES)} after the flood.",
        ]
        rng.shuffle(sentences)
        parts.append(" ".join(sentences[: rng.randint(2, 4)]))
        total += len(parts[-1])
    return "\n\n".join(parts)


def _one_line(rng, size):
    return _prose(rng, size).replace("\n\n", " ")


def _markdown(rng, size):
    parts = _prose(rng, size).split("\n\n")
    made = ["# Annual report"]
    for number, part in enumerate(parts):
        if number % 3 == 0:
            made.append(f"## {number + 1}. The {rng.choice(TOPICS)}")
        made.append(part if number % 4 else "\n".join(f"- **{word}** was seen" for word in rng.sample(TOPICS, 4)))
        if number % 5 == 4:
            made.append("---")
    return "\n\n".join(made)


def _code(rng, size):
    parts, total = [], 0
    while total < size:
        name = f"{rng.choice(TOPICS)}_{rng.randint(1, 99)}"
        parts.append(
            f'def {name}(value: int) -> int:\n    """Return the {rng.choice(TOPICS)}\'s share.\n\n    Args:\n        value: '
            f'of it.\n    """\n    if value > {rng.randint(2, 90)}:\n        return value * {rng.randint(2, 9)}\n    '
            f'return {{"{rng.choice(TOPICS)}": [value, None]}}["{rng.choice(TOPICS)}"]  # <{rng.choice(TOPICS)}>'
        )
        total += len(parts[-1])
    return "\n\n\n".join(parts)


def _table(rng, size):
    rows = ["| name | thing | year | amount |", "| --- | --- | --- | --- |"]
    while sum(map(len, rows)) < size:
        rows.append(
            f"| {rng.choice(NAMES)} | {rng.choice(TOPICS)} | {rng.randint(1900, 2020)} | {rng.randint(10, 9999)} |"
        )
    return "\n".join(rows)


def _list(rng, size):
    rows = []
    while sum(map(len, rows)) < size:
        rows.append(f"{len(rows) + 1}. {rng.choice(NAMES)}: {rng.choice(TOPICS)}, {rng.randint(10, 9999)} kg")
    return "\n".join(rows)


def _log(rng, size):
    rows = []
    while sum(map(len, rows)) < size:
        rows.append(
            f"2024-0{rng.randint(1, 9)}-1{rng.randint(0, 9)} 12:{rng.randint(10, 59)}:01 [{rng.choice(('INFO', 'ERROR', 'WARN'))}] "
            f"{rng.choice(TOPICS)}.{rng.choice(TOPICS)}: request {rng.randint(1000, 9999)} took {rng.randint(1, 900)} ms"
        )
    return "\n".join(rows)


def _dialogue(rng, size):
    rows = []
    while sum(map(len, rows)) < size:
        rows.append(f"{rng.choice(NAMES)}: The {rng.choice(TOPICS)} will open in {rng.randint(1900, 2020)}, they say.")
        rows.append(f"{rng.choice(NAMES)}: And who pays for the {rng.choice(TOPICS)}? {rng.choice(NAMES)} will not.")
    return "\n".join(rows)


def _faq(rng, size):
    rows = []
    while sum(map(len, rows)) < size:
        rows.append(f"Q: Who owns the {rng.choice(TOPICS)} of {rng.choice(NAMES)}?")
        rows.append(f"A: It belongs to {rng.choice(NAMES)} since {rng.randint(1900, 2020)}.\n")
    return "\n".join(rows).strip()


def _questions(rng, size):
    parts = _prose(rng, size).split("\n\n")
    for at in range(1, len(parts), 3):
        parts[at] += f" But who built the {rng.choice(TOPICS)} of {rng.choice(NAMES)}? Was it {rng.choice(NAMES)}?"
    return "\n\n".join(parts)


def _labels(rng, size):
    """A report whose paragraphs begin as the parts of prompts do."""
    words = ("Question", "Answer", "Context", "Note", "Source", "Query", "Example")
    parts = _prose(rng, size).split("\n\n")
    for at in range(1, len(parts) - 1, 2):
        parts[at] = f"{rng.choice(words)}: {parts[at]}"
    return "\n\n".join(parts)


def _passages(rng, size):
    return "\n\n".join(f"[{number}] {part}" for number, part in enumerate(_prose(rng, size).split("\n\n"), 1))


def _sources(rng, size):
    return "\n\n".join(f"Source {number}:\n{part}" for number, part in enumerate(_prose(rng, size).split("\n\n"), 1))


def _html(rng, size):
    rows = ["<html><body><article>"]
    while sum(map(len, rows)) < size:
        rows.append(f"<section><h2>{rng.choice(TOPICS)}</h2>\n<p>{_prose(rng, 200)}</p></section>")
    return "\n".join([*rows, "</article></body></html>"])


def _sentences(*forms):
    def make(rng, size):
        parts, total = [], 0
        while total < size:
            said = [
                form.format(
                    name=rng.choice(NAMES), other=rng.choice(NAMES), year=rng.randint(1900, 2020), n=rng.randint(2, 99)
                )
                for form in rng.sample(forms, len(forms))
            ]
            parts.append(" ".join(said))
            total += len(parts[-1])
        return "\n\n".join(parts)

    return make


KINDS = {
    "prose": _prose,
    "one line": _one_line,
    "markdown": _markdown,
    "code": _code,
    "table": _table,
    "list": _list,
    "log": _log,
    "dialogue": _dialogue,
    "questions and answers": _faq,
    "prose with questions": _questions,
    "label words": _labels,
    "numbered passages": _passages,
    "sources": _sources,
    "HTML": _html,
    "German": _sentences(
        "{name} kaufte die Mühle im Jahr {year} von {other}.",
        "Danach standen {n} Maschinen in der Halle.",
        "Die Rechnung über {n} Kronen bezahlte {other}.",
    ),
    "French": _sentences(
        "{name} acheta le moulin à {other} en {year}.",
        "Il y avait alors {n} machines dans l'atelier.",
        "La facture de {n} couronnes fut payée par {other}.",
    ),
    "Spanish": _sentences("{name} compró el molino a {other} en {year}.", "Había {n} máquinas en el taller."),
    "Russian": _sentences("{name} купил мельницу у {other} в {year} году.", "В цехе стояло {n} машин."),
    "Chinese": _sentences(
        "{name}于{year}年从{other}手中买下了磨坊。", "当时车间里有{n}台机器。", "账单由{other}支付，共{n}克朗。"
    ),
    "Japanese": _sentences("{name}は{year}年に{other}から製粉所を買った。", "工場には{n}台の機械があった。"),
    "Korean": _sentences("{name}은 {year}년에 {other}에게서 방앗간을 샀다.", "공장에는 기계가 {n}대 있었다."),
}


def document(kind, seed, size=3500):
    """Return a document of this kind, about `size` characters."""
    return KINDS[kind](random.Random(seed), size)
