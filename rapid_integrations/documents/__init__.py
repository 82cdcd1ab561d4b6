"""Turn files into text: PDF, Office, HTML, mails, e-books and plain text, alone or in folders.

    files and folders -> bytes within limits -> a separate process -> format detection -> reader -> Document

The readers use libraries of the extra `documents`. UTF-8 text needs none of them. `reader` is the public interface,
`isolation` and `child` are the process, and `reading` chooses among the files that are named after a format.
"""

from rapid_integrations.documents.document import Document, Documents, ReadLimits, Skipped
from rapid_integrations.documents.reader import STDIN, read_document, read_documents, read_utf8

__all__ = [
    "STDIN",
    "Document",
    "Documents",
    "ReadLimits",
    "Skipped",
    "read_document",
    "read_documents",
    "read_utf8",
]
