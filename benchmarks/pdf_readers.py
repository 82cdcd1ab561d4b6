"""Which PDF reader finds the words: each reader's against poppler's (`pdftotext`), file by file.

python benchmarks/pdf_readers.py FOLDER --reader rapid --reader pypdf --worst 20

A file is worse than with poppler if it lacks more than a tenth of poppler's words, and no difference between the two
explains that: the same characters cut into other words (99 % of them must be there), words that poppler gives twice at
one place, or the same bytes read in another encoding. `--worst` names both kinds, with the reason. A remark counts
only if it is about pages.

Readers: rapid (this package), pypdfium2, pypdf, pdfminer, pdfplumber, playa, pymupdf, liteparse; all but the first
need their package. Good folders are the test files of pdf.js (test/pdfs), pdfminer.six (samples) and pdfplumber
(tests/pdfs). Each reader works in a process of its own, which ends with a file that crashes it or takes longer than
`--limit`.
"""

from __future__ import annotations

import html
import logging
import multiprocessing
import re
import statistics
import subprocess
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import typer

# One ideograph is a word: readers put spaces between them as they like.
IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
WORD = re.compile(rf"{IDEOGRAPH}|(?:(?!{IDEOGRAPH})[^\W_])+")
PARTED = re.compile(r"(\w)[-\u00ad\u2010\ufffe\x02]\s*\n\s*(\w)")
MISSES = 0.1  # share of poppler's words that a file may lack
SLIPS = 0.01  # share of poppler's characters that may lack in words that are merely cut in another way
BYTES = ("gb18030", "big5", "cp949", "shift_jis", "mac_roman")  # encodings that poppler reads as Latin letters
BOX = re.compile(r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(.*?)</word>|<page ')
FEW = 5  # words; files with fewer are left out

Read = Callable[[Path], tuple[list[str], list[str]]]  # pages, remarks


@dataclass(frozen=True)
class Outcome:
    """What a reader made of a file; CPU time in seconds."""

    pages: list[str]
    remarks: list[str]
    failure: str
    cpu: float


def poppler(path: Path) -> tuple[list[str], list[str]]:
    """What pdftotext, a program of poppler, finds."""
    done = subprocess.run(["pdftotext", "-enc", "UTF-8", "-q", str(path), "-"], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace").split("\f")[:-1], []


def rapid(path: Path) -> tuple[list[str], list[str]]:
    """This package, in this process, so that its time is measured."""
    from rapid_integrations.documents import read_document

    document = read_document(path, time_limit_s=None)
    return [document.text], list(document.remarks)


def pypdfium2(path: Path) -> tuple[list[str], list[str]]:
    """PDFium as it is."""
    import pypdfium2

    document = pypdfium2.PdfDocument(path)
    document.init_forms()
    return [document[number].get_textpage().get_text_range() for number in range(len(document))], []


def pypdf(path: Path) -> tuple[list[str], list[str]]:
    """The reader in pure Python that this package had before."""
    import pypdf

    reader = pypdf.PdfReader(path)
    if reader.is_encrypted:
        reader.decrypt("")
    return [page.extract_text() for page in reader.pages], []


def pdfminer(path: Path) -> tuple[list[str], list[str]]:
    """What pdfminer.six finds."""
    from pdfminer.high_level import extract_text

    return extract_text(path).split("\f")[:-1], []


def pdfplumber(path: Path) -> tuple[list[str], list[str]]:
    """A layer above pdfminer.six."""
    import pdfplumber

    with pdfplumber.open(path) as document:
        return [page.extract_text() for page in document.pages], []


def playa(path: Path) -> tuple[list[str], list[str]]:
    """A descendant of pdfminer.six."""
    import playa

    with playa.open(path) as document:
        return [page.extract_text() for page in document.pages], []


def pymupdf(path: Path) -> tuple[list[str], list[str]]:
    """MuPDF; its licence is the AGPL."""
    import pymupdf

    with pymupdf.open(path) as document:
        return [page.get_text() for page in document], []


def liteparse(path: Path) -> tuple[list[str], list[str]]:
    """PDFium behind Rust."""
    from liteparse import LiteParse

    return [page.text for page in LiteParse(ocr_enabled=False).parse(str(path)).pages], []


READERS: dict[str, Read] = {
    each.__name__: each for each in (poppler, rapid, pypdfium2, pypdf, pdfminer, pdfplumber, playa, pymupdf, liteparse)
}


def serve(name: str, pipe: Connection) -> None:
    """Read the files whose paths come in."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    while True:
        path = pipe.recv()
        start = time.process_time()
        try:
            pages, remarks = READERS[name](path)
            failure = ""
        except BaseException as error:  # a panic of Rust is no Exception
            pages, remarks, failure = [], [], f"{type(error).__name__}: {error}"[:200]
        pipe.send(Outcome(pages, remarks, failure, time.process_time() - start))


def read_all(name: str, paths: Sequence[Path], limit: float) -> Iterator[Outcome]:
    """Yield what a reader makes of each file."""
    context = multiprocessing.get_context("spawn")
    child = None
    for path in paths:
        if child is None or not child.is_alive():
            ours, theirs = context.Pipe()
            child = context.Process(target=serve, args=(name, theirs), daemon=True)
            child.start()
            theirs.close()
        ours.send(path)
        try:
            if ours.poll(limit):
                yield ours.recv()
                continue
            failure = f"takes more than {limit:g} s"
        except EOFError:
            failure = "crashed"
        child.kill()
        child.join()
        yield Outcome([], [], failure, limit)


def words(pages: Sequence[str]) -> Counter[str]:
    """Return how often each word is there, without regard to case and to hyphens at line ends."""
    return Counter(WORD.findall(PARTED.sub(r"\1\2", unicodedata.normalize("NFKC", "\n".join(pages))).casefold()))


def characters(counted: Counter[str]) -> Counter[str]:
    """Return how often each character is there, in all words together."""
    total: Counter[str] = Counter()
    for word, times in counted.items():
        for character in word:
            total[character] += times
    return total


def share(want: Counter[str], have: Counter[str]) -> float:
    """Return the share of `want` that is in `have`; 1 if nothing is wanted."""
    return (want & have).total() / want.total() if want else 1.0


def poppler_once(path: Path) -> Counter[str]:
    """Return poppler's words, those once that it gives twice at one place, and those that begin another one there."""
    done = subprocess.run(
        ["pdftotext", "-bbox", "-enc", "UTF-8", "-q", str(path), "-"], capture_output=True, check=True
    )
    kept: list[str] = []
    page: list[tuple[float, float, float, str]] = []
    for box in BOX.finditer(done.stdout.decode("utf-8", "replace")):
        if box[5] is None:
            page = []
            continue
        left, top, bottom, word = float(box[1]), float(box[2]), float(box[4]), html.unescape(box[5])
        near = (bottom - top) / 2
        if any(abs(a - left) < near and abs(b - top) < near and other.startswith(word) for a, b, _, other in page):
            continue
        page.append((left, top, bottom, word))
        kept.append(word)
    return words(kept)


def as_latin(text: str, encoding: str) -> str:
    """Return a text's bytes in an encoding as WinAnsi (Windows-1252, bullets for the codes that it leaves out)."""
    return "".join(
        bytes([code]).decode("cp1252", "replace").replace("\ufffd", "\u2022")
        for code in text.encode(encoding, "ignore")
    )


def explained(path: Path, want: Counter[str], pages: Sequence[str]) -> str:
    """Return how poppler's words differ from those that were found, other than by a loss; "" for a loss."""
    have = words(pages)
    wanted, found = characters(want), characters(have)
    if share(wanted, found) >= 1 - SLIPS:
        same = (want & have).total()
        return f"{have.total() - same} other words of the same characters in place of {want.total() - same}"
    once = poppler_once(path)
    if share(once, have) >= 1 - MISSES or share(characters(once), found) >= 1 - SLIPS:
        return "poppler gives words twice that are drawn twice at one place"
    for encoding in BYTES:
        if share(wanted, characters(words([as_latin("\n".join(pages), encoding)]))) >= 1 - SLIPS:
            return f"poppler reads bytes of {encoding} as Latin letters"
    return ""


def main(
    folder: Annotated[Path, typer.Argument(help="PDF files, in subfolders too.")],
    reader: Annotated[list[str] | None, typer.Option(help="May be repeated; default: rapid.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds for one file.")] = 60.0,
    worst: Annotated[int, typer.Option(help="How many files that lack words are named, of each kind.")] = 0,
) -> None:
    """Print a table with a line for each reader."""
    paths = sorted(folder.rglob("*.pdf"))
    reference = list(read_all("poppler", paths, limit))
    pages = sum(len(each.pages) for each in reference)
    wanted = [words(each.pages) for each in reference]
    typer.echo(f"{len(paths):,} files, {pages:,} pages")
    typer.echo(
        "| reader | failed | words found, mean | files lacking a tenth | ... worse | ... without a remark | ms a page |"
    )
    typer.echo("| --- | --- | --- | --- | --- | --- | --- |")
    for name in reader or ["rapid"]:
        found = list(read_all(name, paths, limit))
        shares = [
            (share(want, words(each.pages)), path, each, want)
            for want, path, each in zip(wanted, paths, found, strict=True)
            if want.total() >= FEW
        ]
        low = sorted((each for each in shares if each[0] < 1 - MISSES), key=lambda each: each[0])
        reasons = {path: explained(path, want, each.pages) for _, path, each, want in low}
        worse = [each for each in low if not reasons[each[1]]]
        told = {path: [*each.remarks, each.failure] for _, path, each, _ in worse if is_told(each)}
        silent = [each for each in worse if each[1] not in told]
        failed = sum(bool(each.failure) for _, _, each, _ in shares)
        mean = statistics.mean(found_share for found_share, *_ in shares)
        cpu = sum(each.cpu for each in found)
        typer.echo(
            f"| {name} | {failed} | {mean:.3f} | {len(low)} | {len(worse)} | {len(silent)} | "
            f"{1000 * cpu / max(1, pages):.1f} |"
        )
        remarked = sum(bool(each.remarks) for each in found)
        typer.echo(
            f"    {len(shares):,} files with {FEW} words or more; {remarked:,} of all with a remark; {cpu:.1f} s of CPU"
        )
        for found_share, path, *_ in silent[:worst]:
            typer.echo(f"    worse without a remark, {found_share:.2f} of the words: {path}")
        for found_share, path, *_ in [each for each in worse if each[1] in told][:worst]:
            typer.echo(f"    worse, {found_share:.2f} of the words: {path}: {' '.join(told[path]).strip()}")
        for found_share, path, *_ in [each for each in low if reasons[each[1]]][:worst]:
            typer.echo(f"    not worse, {found_share:.2f} of the words: {path}: {reasons[path]}")


def is_told(outcome: Outcome) -> bool:
    """Whether a reader said that pages, or the file, were not read."""
    return bool(outcome.failure) or any(remark.startswith("page") for remark in outcome.remarks)


if __name__ == "__main__":
    typer.run(main)
