"""L-Eval's topic_retrieval_longchat as single dialogues, in the format that `rapid eval run --task dialogue` reads.

python benchmarks/longchat_dialogues.py LEVAL/topic_retrieval_longchat.jsonl mtbench101.jsonl
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

SPEAKER = re.compile(r"\s*(USER|ASSISTANT): ")
BEGINNING = re.compile(r"I would like to discuss the topic of (.*?)\.?$")
END = "end of our discussion"

Turn = dict[str, str]


def dialogues(conversation: str) -> Iterator[tuple[str, list[Turn]]]:
    """Yield topic and turns of each dialogue in a conversation that goes through many topics."""
    parts = SPEAKER.split(conversation)[1:]
    topic, spoken = "", ""
    turns: list[Turn] = []
    for speaker, text in zip(parts[::2], map(str.strip, parts[1::2]), strict=True):
        if speaker == "ASSISTANT":
            if spoken:
                turns.append({"user": spoken, "bot": text})
            elif turns:  # the line is split in the data
                turns[-1]["bot"] += f" {text}"
            spoken = ""
            continue
        begun = BEGINNING.match(text)
        if topic and (begun or END in text):
            yield topic, turns
        if begun or END in text:
            topic, turns = begun[1] if begun else "", []
        spoken = text if topic else ""
    if topic:
        yield topic, turns


def main(
    conversations: Annotated[Path, typer.Argument(help="topic_retrieval_longchat.jsonl of L-Eval.")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
) -> None:
    """Write each topic's dialogue once."""
    found: dict[str, list[Turn]] = {}
    for line in conversations.read_text().splitlines():
        for topic, turns in dialogues(json.loads(line)["input"]):
            found.setdefault(topic, turns)
    rows = ({"task": "longchat", "id": number, "history": turns} for number, turns in enumerate(found.values()))
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    typer.echo(f"{len(found)} dialogues")


if __name__ == "__main__":
    typer.run(main)
