"""What the libraries behind a model say in a notebook when they are imported, left out. Imports nothing by itself."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module


def import_progress_bars() -> None:
    """Import tqdm, which transformers and its like import first, without its call for widgets.

    In a notebook without ipywidgets its bars are text, which is fine; it warns of that at every user's first import.
    """
    if "IPython" not in sys.modules:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        try:
            import_module("tqdm.auto")
        except ImportError:
            pass  # then nobody warns
