"""What a found context must be when nothing marks the edges of its document."""

from rapid_integrations.prompt.segmentation import Segmentation


def assert_nearly_all(text: str, found: Segmentation, document: str, question: str) -> None:
    """Assert that `found` is 80% of the document or more and nothing else, and that its query is the question."""
    ((start, end),) = found.context_spans
    first = text.index(document)
    assert first <= start < end <= first + len(document)
    assert end - start >= 0.8 * len(document)
    assert question not in text[start:end] and found.query == question
