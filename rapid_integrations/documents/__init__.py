"""Files to text: PDF, Office, HTML, mails, e-books and plain text, alone or in folders. No models, no framework.

    files and folders -> bytes within limits -> a process that reads them -> which format -> its reader -> Document

The readers are well-kept libraries of the extra `documents`; UTF-8 text needs none of them. `reader` is the front door,
`isolation` and `child` are the process, `reading` chooses among the files called after a format.
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
