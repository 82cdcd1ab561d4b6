"""Which PDF reader finds the words: each reader's against poppler's (`pdftotext`), file by file.

python benchmarks/pdf_readers.py FOLDER --reader rapid --reader pypdf --worst 20

Readers: rapid (this package), pypdfium2, pypdf, pdfminer, pdfplumber, playa, pymupdf, liteparse; all but the first
need their package. Good folders are the test files of pdf.js (test/pdfs), pdfminer.six (samples) and pdfplumber
(tests/pdfs). Each reader works in a process of its own, which ends with a file that crashes it or takes longer than
`--limit`.
"""

from __future__ import annotations

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


def main(
    folder: Annotated[Path, typer.Argument(help="PDF files, in subfolders too.")],
    reader: Annotated[list[str] | None, typer.Option(help="May be repeated; default: rapid.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds for one file.")] = 60.0,
    worst: Annotated[int, typer.Option(help="How many files that lack words without a remark are named.")] = 0,
) -> None:
    """Print a table with a line for each reader."""
    paths = sorted(folder.rglob("*.pdf"))
    reference = list(read_all("poppler", paths, limit))
    pages = sum(len(each.pages) for each in reference)
    wanted = [words(each.pages) for each in reference]
    typer.echo(f"{len(paths):,} files, {pages:,} pages")
    typer.echo("| reader | failed | words found, mean | files lacking a tenth | ... without a remark | ms a page |")
    typer.echo("| --- | --- | --- | --- | --- | --- |")
    for name in reader or ["rapid"]:
        found = list(read_all(name, paths, limit))
        shares = [
            ((want & words(each.pages)).total() / want.total(), path, each)
            for want, path, each in zip(wanted, paths, found, strict=True)
            if want.total() >= FEW
        ]
        low = [each for each in shares if each[0] < 1 - MISSES]
        silent = [each for each in low if not each[2].remarks and not each[2].failure]
        failed = sum(bool(each.failure) and want.total() >= FEW for each, want in zip(found, wanted, strict=True))
        mean = statistics.mean(share for share, *_ in shares)
        cpu = sum(each.cpu for each in found)
        typer.echo(
            f"| {name} | {failed} | {mean:.3f} | {len(low)} | {len(silent)} | {1000 * cpu / max(1, pages):.1f} |"
        )
        for share, path, _ in sorted(silent, key=lambda each: each[0])[:worst]:
            typer.echo(f"    {share:.2f} of poppler's words: {path}")


if __name__ == "__main__":
    typer.run(main)
