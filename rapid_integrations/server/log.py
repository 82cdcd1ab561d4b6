"""The log of a server. It holds no text of a prompt, an answer, a document or a key."""

from __future__ import annotations

import logging
import traceback


def log_failure(logger: logging.Logger, error: BaseException) -> None:
    """Log an unexpected error: its class and where it was raised. Its message may quote a client's text."""
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("a request failed with %s\n%s", type(error).__name__, places)
