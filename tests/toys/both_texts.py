"""What the drafter reads beside what the target reads."""


def both(prepared):
    """Assert that the drafter's text is the target's with every context replaced; return contexts and question."""
    text = prepared.target.text
    for context, kept in zip(prepared.target.contexts, prepared.compression.texts, strict=True):
        text = text.replace(context, kept, 1)
    assert prepared.drafter.text == text and len(text) < len(prepared.target.text)
    return prepared.target.contexts, prepared.target.query
