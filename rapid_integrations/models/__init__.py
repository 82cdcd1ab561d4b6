"""The protocol for models, and the code that loads and runs them."""

from rapid_integrations.progress import import_progress_bars

import_progress_bars()  # before the modules here import transformers
