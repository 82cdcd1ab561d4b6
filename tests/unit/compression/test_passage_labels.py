"""What the drafter reads of a passage comes with the passage's label, unchanged, and with no other."""

import random
import re

import pytest

from rapid_integrations import CompressionConfig
from rapid_integrations.compression import Compressor, EmbeddingCache, Passage, PassageCompressor, chunk_text
from rapid_integrations.compression.chunker import chunk_passages
from rapid_integrations.compression.passage_labels import labelled_passages
from tests.toys.embedder import HashEmbedder
from tests.toys.offsets import WordTokenizer
from tests.unit.prompt.segmentation.documents import KINDS, document

TOKENIZER = WordTokenizer()
CONFIG = CompressionConfig(chunk_tokens=24, min_tokens=90, ratio=0.15, min_chunks=1)
WORDS = "mill ferry kiln loom quarry".split()
# What stands before each passage, and behind it; {n} is its number.
FORMATS = {
    "CitationQueryEngine": ("Source {n}:\n", "\n"),
    "numbered": ("[{n}] ", "\n\n"),
    "numbered, a line of its own": ("[{n}]\n", "\n\n"),
    "document and title": ("Document {n} (The mill of {n})\n", "\n\n"),
    "document in brackets": ("Document [{n}](Title: The mill of {n}) ", "\n"),
    "bracketed source": ("[Source {n}: mill-{n}.pdf]\n", "\n\n"),
    "retrieve tool of create_agent": ("Source: {{'source': 'mill-{n}.pdf'}}\nContent: ", "\n\n"),
    "content, then source": ("Content: ", "\nSource: mill-{n}\n\n"),
    "passage": ("Passage:\n", "\n\n"),
    "metadata header": ("page_label: {n}\nfile_path: mill-{n}.pdf\n\n", "\n\n"),
    "title and text": ("Title: The mill of {n}\nText: ", "\n\n"),
    "heading": ("### Document {n}\n", "\n\n"),
    "ruled": ("--- Document {n} ---\n", "\n\n"),
    "tag": ('<source id="{n}" name="mill-{n}.pdf">', "</source>\n"),
    "Anthropic": (
        '<document index="{n}">\n<source>mill-{n}.pdf</source>\n<document_content>\n',
        "\n</document_content>\n</document>\n",
    ),
    "German": ("Quelle {n}:\n", "\n\n"),
    "Spanish": ("[Fragmento {n}]\n", "\n\n"),
    "Chinese": ("文档{n}：", "\n\n"),
    "Chinese, bracketed": ("【{n}】", "\n\n"),
    "Japanese": ("出典 {n}: 製粉所\n", "\n\n"),
}


def made(name, seed, passages=8):
    """Return a context, its passages' own texts, and their labels."""
    rng = random.Random(seed)
    before, behind = FORMATS[name]
    text, bodies, labels = "", [], []
    for number in range(1, passages + 1):
        words = [f"p{number}s{at}{rng.choice(WORDS)}" for at in range(rng.choice((16, 24, 72)))]
        body = ". ".join(" ".join(words[at : at + 8]) for at in range(0, len(words), 8)) + "."
        bodies.append(body)
        labels.append(before.format(n=number))
        text += labels[-1] + body + behind.format(n=number)
    return text.rstrip("\n"), bodies, labels


def check(text, labels, behind=""):
    """Each word's last label is its own, and each label has words of its passage."""
    events = [(match.start(), int(match[1])) for match in re.finditer(r"p(\d+)s\d+", text)]
    assert events
    if behind.strip() and "Source" in behind:  # the label stands behind the passage
        for number in {number for _, number in events}:
            last = max(at for at, of in events if of == number)
            assert text.find(f"Source: mill-{number}", last) == text.find("Source: mill-", last) >= 0
        return
    numbers = {label.strip(): number for number, label in enumerate(labels, 1)}
    places = sorted(
        (match.start(), number)
        for label, number in numbers.items()
        for match in re.finditer(re.escape(label) + r"(?!\d)", text)
    )
    for at, number in events:
        own = [of for start, of in places if start < at]
        assert own and (labels[own[-1] - 1].strip() == labels[number - 1].strip()), (text, number)
    for index, (start, _) in enumerate(places):
        end = places[index + 1][0] if index + 1 < len(places) else len(text)
        assert any(start < at < end for at, _ in events), ("a label without its passage", text)


@pytest.mark.parametrize("name", FORMATS)
def test_labels_are_found(name):
    text, bodies, labels = made(name, 0)
    found = labelled_passages(text)
    assert [text[each.start : each.body].strip() for each in found] == [label.strip() for label in labels]
    assert [text[each.body : each.tail].strip() for each in found] == bodies
    assert found[0].start == 0 and found[-1].end == len(text)
    assert all(one.end == other.start for one, other in zip(found, found[1:], strict=False))


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(6))
def test_each_piece_comes_with_its_label(name, seed):
    text, bodies, labels = made(name, seed, passages=14)
    number = random.Random(seed).randrange(14)
    query = bodies[number].split(". ")[-1]
    result = Compressor(HashEmbedder(threshold=-1.0), TOKENIZER).compress([text], query, CONFIG)
    assert result.shortened
    assert query.strip(".") in result.texts[0]
    check(result.texts[0], labels, FORMATS[name][1])
    assert result.kept_tokens <= max(CONFIG.budget(result.context_tokens), 60)
    for scored in result.selected[0]:
        assert text[scored.chunk.start : scored.chunk.end] == scored.chunk.text


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_each_passage_of_a_retriever_comes_with_its_label(name, seed):
    text, bodies, labels = made(name, seed)
    scores = random.Random(seed).sample(range(8), 8)
    passages = [Passage(body, float(score)) for body, score in zip(bodies, scores, strict=True)]
    otherwise = Compressor(HashEmbedder(), TOKENIZER, EmbeddingCache())
    compressor = PassageCompressor(lambda _: passages, TOKENIZER, otherwise, least_coverage=0.5)
    config = CONFIG.model_copy(update={"ratio": 0.4})
    result = compressor.compress([text], "which?", config)
    assert result.source == "retriever" and result.shortened
    check(result.texts[0], labels, FORMATS[name][1])
    assert result.kept_tokens <= max(config.budget(result.context_tokens), 110)


def test_unknown_labels_of_a_retriever_come_along():
    """Whatever a document prompt writes on the lines before a passage belongs to the passage."""
    bodies = [f"p{number}s0 the mill of {number} burnt down." for number in range(1, 7)]
    labels = [f"<<mill/{number}>> (seen {number} times)\n" for number in range(1, 7)]
    text = "\n\n".join(label + body for label, body in zip(labels, bodies, strict=True))
    passages = [Passage(body, float(rank)) for rank, body in enumerate(bodies)]
    compressor = PassageCompressor(lambda _: passages, TOKENIZER, Compressor(HashEmbedder(), TOKENIZER))
    result = compressor.compress([text], "which?", CompressionConfig(chunk_tokens=24, ratio=0.5, min_chunks=1))
    check(result.texts[0], labels)


def test_a_label_is_not_repeated_within_its_passage():
    text = (
        "Source 1:\n" + " ".join(f"p1s{at} mill ferry kiln loom." for at in range(40)) + "\n\nSource 2:\np2s0 quarry."
    )
    chunks = chunk_passages(text, TOKENIZER, [each.start for each in labelled_passages(text)], 24)
    from rapid_integrations.compression.joining import join_chunks
    from rapid_integrations.compression.passage_labels import LabelsOf

    joined = join_chunks([chunks[1], chunks[4], chunks[-1]], LabelsOf(text))
    assert joined.count("Source 1:") == 1 and joined.count("Source 2:") == 1
    check(joined, ["Source 1:\n", "Source 2:\n"])


def test_what_is_cut_within_a_tag_is_closed():
    text, _, _ = made("Anthropic", 1, passages=3)
    long = text.replace("p2s0", "p2s0 " + "mill ferry kiln. " * 60)
    result = Compressor(HashEmbedder(threshold=-1.0), TOKENIZER).compress([long], "p2s0 mill", CONFIG)
    (kept,) = result.texts
    for name in ("document", "source", "document_content"):
        assert len(re.findall(rf"<{name}[ >]", kept)) == kept.count(f"</{name}>") > 0


@pytest.mark.parametrize("kind", ["prose", "code", "table", "log", "dialogue", "German", "Chinese"])
def test_a_document_without_labels_is_cut_as_before(kind):
    text = document(kind, 3)
    chunks = Compressor(HashEmbedder(), TOKENIZER)._document([text], 24).chunks[0]
    assert list(chunks) == chunk_text(text, TOKENIZER, 24)


@pytest.mark.parametrize("kind", KINDS)
def test_passages_tile(kind):
    text = document(kind, 5)
    found = labelled_passages(text)
    chunks = chunk_passages(text, TOKENIZER, [each.start for each in found], 24)
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert sum(chunk.tokens for chunk in chunks) == len(TOKENIZER.offsets(text))
    assert all(chunk.tokens <= 24 or len(chunk.text) == 1 for chunk in chunks)
