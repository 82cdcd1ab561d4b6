"""The error that says what a description cannot express."""


class NotDescribedError(Exception):
    """A model of a known family has a part that the description cannot express."""
