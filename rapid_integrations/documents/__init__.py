"""Files to text: PDF, DOCX, HTML, Markdown and plain text, alone or in folders. Imports no models and no framework.

    files and folders -> bytes within limits -> which format -> its reader -> Document

The readers are well-kept libraries of the extra `documents`; UTF-8 text needs none of them.
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
