"""What a model is, and how models are loaded and run."""

from rapid_integrations.progress import import_progress_bars

import_progress_bars()  # before the modules here bring transformers
