"""Worker processes of an ingestion pipeline: they do not make a model in this process faster, so it says so."""

from __future__ import annotations

import multiprocessing

from rapid_integrations.adapters.call_stack import callers
from rapid_integrations.errors import ConfigurationError

_PIPELINE = "llama_index.core.ingestion.pipeline"


def refuse_ingestion_workers() -> None:
    """Refuse to load a pipeline's LLM a second time, in a worker process of `IngestionPipeline(num_workers=...)`.

    Raises:
        ConfigurationError: this is such a worker.
    """
    if multiprocessing.parent_process() is None:
        return
    for module, _ in callers():
        if module == _PIPELINE:
            raise ConfigurationError(
                "RapidLLM in an IngestionPipeline with num_workers: each worker would load the models once more and "
                "compute on the same processors or the same GPU, on all of them. With two workers it took two to three "
                "times as long as with one (24 nodes, 135M parameters, 2 cores), and twice the memory. Leave out "
                "num_workers, or let only transformations without an LLM have workers, in a pipeline of their own; an "
                "extractor's num_workers=... are tasks, which share one engine"
            )
