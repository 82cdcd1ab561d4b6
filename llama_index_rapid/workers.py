"""A check that refuses worker processes of an ingestion pipeline, because they make a local model slower."""

from __future__ import annotations

import multiprocessing

from rapid_integrations.adapters.call_stack import callers
from rapid_integrations.errors import ConfigurationError

_PIPELINE = "llama_index.core.ingestion.pipeline"


def refuse_ingestion_workers() -> None:
    """Refuse to load a pipeline's LLM again in a worker process of `IngestionPipeline(num_workers=...)`.

    Raises:
        ConfigurationError: this is such a worker.
    """
    if multiprocessing.parent_process() is None:
        return
    for module, _ in callers():
        if module == _PIPELINE:
            raise ConfigurationError(
                "RapidLLM in an IngestionPipeline with num_workers: each worker would load the models again and use "
                "all cores or the same GPU. Two workers took two to three times as long as one (24 nodes, 135M "
                "parameters, 2 cores), and twice the memory. Leave out num_workers, or use workers only in a separate "
                "pipeline of transformations without an LLM. An extractor's num_workers=... are tasks, which share "
                "one engine"
            )
