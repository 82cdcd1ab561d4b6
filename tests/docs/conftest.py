"""A tiny model in place of every model that the documents name, so that what they say can be run."""

import inspect
import json

import openpyxl
import pytest

from rapid_integrations import CompressionConfig, RapidEngine, SamplingParams
from rapid_integrations.compression import default_compressor
from tests.toys.chat_templates import QWEN3, QWEN25
from tests.toys.document_files import docx, paragraph, pdf
from tests.toys.embedder import HashEmbedder
from tests.toys.light_model import light_engine, light_model
from tests.toys.models import byte_tokenizer, words
from tests.toys.office_files import line, pptx, shape

LOADING = inspect.signature(RapidEngine.from_pretrained).parameters.keys() - {"options"}
DOCUMENT = "\n\n".join(f"Section {number}. {words(number, 40)}." for number in range(16))


@pytest.fixture
def tiny_models(monkeypatch):
    """Let `from_pretrained` take every argument that it has, and build a random model."""

    def from_pretrained(cls, target=None, drafter=None, **options):
        options = {name: value for name, value in options.items() if name not in LOADING}
        settings = {
            "embedder": HashEmbedder(),
            "compression": CompressionConfig(chunk_tokens=256, min_tokens=512),
            "sampling": SamplingParams(max_new_tokens=24),
            **{name: value for name, value in options.items() if name != "embedder"},
        }
        if not isinstance(drafter, str | None):  # a drafter on another machine
            return RapidEngine(light_model(), drafter, **settings)
        template = QWEN3 if "Qwen3" in str(target) else QWEN25
        tokenizer = byte_tokenizer(chat_template=template, extra_tokens=("<tool_call>", "</tool_call>"))
        return light_engine(tokenizer=tokenizer, config={"max_position_embeddings": 8192}, **settings)

    monkeypatch.setattr(RapidEngine, "from_pretrained", classmethod(from_pretrained))
    monkeypatch.setattr(default_compressor.packaged, "pull", lambda name, report=None: name)
    monkeypatch.setattr(default_compressor, "SentenceTransformerEmbedder", lambda source: HashEmbedder())


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the documents' examples name, and a home."""
    (tmp_path / "examples").mkdir()
    for name in ("examples/handbook.md", "report.md", "notes.txt", "minutes.txt"):
        (tmp_path / name).write_text(DOCUMENT if name.startswith("examples") else DOCUMENT[:2500])
    (tmp_path / "minutes").mkdir()
    (tmp_path / "minutes" / "march.txt").write_text(DOCUMENT[:1500])
    (tmp_path / "letter.txt").write_text("Viele Grüße, Jörg Müller. " + DOCUMENT[:1500], encoding="cp1252")
    (tmp_path / "report.pdf").write_bytes(pdf(*DOCUMENT[:2500].split("\n\n")))
    (tmp_path / "report.docx").write_bytes(docx(paragraph(DOCUMENT[:2500])))
    (tmp_path / "mails").mkdir()
    mail = f"From: a@example.org\nSubject: rents\nContent-Type: text/plain\n\n{DOCUMENT[:1500]}"
    (tmp_path / "mails" / "rents.eml").write_text(mail)
    (tmp_path / "handout.pptx").write_bytes(pptx(shape(line("Mill Lane owes 20 EUR."))))
    rents = openpyxl.Workbook()
    rents.active.append(["Mill Lane", 20])
    rents.save(tmp_path / "rents.xlsx")
    schema = {"type": "object", "properties": {"signed": {"type": "boolean"}}, "required": ["signed"]}
    (tmp_path / "schema.json").write_text(json.dumps({**schema, "additionalProperties": False}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAPID_HOME", str(tmp_path / "rapid"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    return tmp_path
