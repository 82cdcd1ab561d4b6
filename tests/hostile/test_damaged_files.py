"""Damaged files of every kind give a document or a `DocumentError`, and nothing else; bounded in time."""

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.reading import read_bytes
from rapid_integrations.errors import DocumentError
from tests.toys.document_files import docx, encrypted_pdf, paragraph, pdf
from tests.toys.docx_facts import facts_docx
from tests.toys.office_files import epub, line, odf, pptx, shape

FILES = (
    pdf("some words", None, "and more"),
    encrypted_pdf("some words", ""),
    docx(paragraph("some words") + "<w:tbl><w:tr><w:tc>" + paragraph("cell") + "</w:tc></w:tr></w:tbl>"),
    b"<!doctype html><html><table><tr><td colspan=3>a<ul><li>b</table><pre>c</pre></html>",
    "größer als 東京".encode("utf-16"),
    "größer".encode("cp1252") * 20,
    facts_docx(),
    pptx(shape(line("some words"))),
    odf("<text:p>some words</text:p>"),
    epub("<p>some words"),
    b"{\\rtf1\\ansi some \\b words\\par}",
    b"From: a\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\nwords\n--B--\n",
    b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["x"], "outputs": [{"text": "y"}]}]}',
)
LIMITS = ReadLimits(file_bytes=2**20, unpacked_bytes=2**20, characters=10**6)
BOUNDED = settings(
    deadline=timedelta(seconds=60), max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("replace", "cut", "repeat", "insert")))
        length = draw(st.integers(1, 40))
        if kind == "replace":
            data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
        else:
            tokens = (b"<<", b">>", b"[", b"1 0 R", b"endobj", b"<div>", b"</td>", b"&#0;", b"\0", b"9999999999", b"-1")
            data[at:at] = draw(st.sampled_from(tokens))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@BOUNDED
@given(damaged())
def test_damaged_files(data):
    try:
        document = read_bytes(data, "name", None, LIMITS)
    except DocumentError as error:
        assert error.source == "name" and error.reason
    else:
        assert isinstance(document, Document) and document.text.strip()
        document.text.encode()  # no lone surrogates


@BOUNDED
@given(st.binary(max_size=500))
def test_any_bytes(data):
    test_damaged_files.hypothesis.inner_test(data)
