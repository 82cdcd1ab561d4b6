"""The arguments of the Ray Serve application. Imports neither torch nor Ray."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from rapid_integrations.config import (
    DEFAULT_TARGET,
    CompressionConfig,
    SamplingParams,
    Settings,
    SpeculationConfig,
)
from rapid_integrations.server.settings import ServerSettings

_SETTINGS: dict[str, type[Settings]] = {
    "sampling": SamplingParams,
    "speculation": SpeculationConfig,
    "compression": CompressionConfig,
    "server": ServerSettings,
}


class RayArguments(Settings):
    """The arguments of `build`. On the command line of `serve run` they are NAME=VALUE, in its YAML file `args`."""

    target: str = Field(default=DEFAULT_TARGET, description="the model that reads the documents")
    models: dict[str, Any] = Field(
        default={}, description="further arguments of RapidEngine.from_pretrained, such as drafter and quantization"
    )
    sampling: SamplingParams = Field(default_factory=SamplingParams, description="defaults of requests")
    speculation: SpeculationConfig = Field(default_factory=SpeculationConfig, description="defaults of requests")
    compression: CompressionConfig = Field(default_factory=CompressionConfig, description="defaults of requests")
    chat_template_kwargs: dict[str, Any] = Field(
        default={}, description="arguments of the chat template that requests do not name themselves"
    )
    server: ServerSettings = Field(
        default_factory=ServerSettings, description="limits, places and keys; files_dir is shared by all replicas"
    )
    prefix_cache_dir: str | None = Field(
        default=None, description="a folder that all replicas share, for the KV caches of documents"
    )
    replicas: int = Field(default=1, ge=1, description="number of engines; the least number if max_replicas is larger")
    max_replicas: int | None = Field(
        default=None, ge=1, description="largest number of engines; None keeps their number as it is"
    )
    target_requests: int = Field(
        default=4, ge=1, description="number of running requests of an engine above which another one is started"
    )
    cpus: float = Field(default=1, gt=0, description="processor cores of an engine, which are also its threads")
    gpus: float = Field(default=0, ge=0, description="GPUs of an engine")

    @field_validator(*_SETTINGS, mode="before")
    @classmethod
    def _checked_alone(cls, given: Any, info: ValidationInfo) -> Any:
        """Check settings by themselves, so that an error names theirs and not this class's field."""
        assert info.field_name is not None
        return _SETTINGS[info.field_name](**given) if isinstance(given, dict) else given

    @property
    def scale(self) -> dict[str, Any]:
        """The number of replicas, as options of a Serve deployment."""
        if self.max_replicas is None or self.max_replicas <= self.replicas:
            return {"num_replicas": self.replicas}
        scale = {
            "min_replicas": self.replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.target_requests,
        }
        return {"num_replicas": None, "autoscaling_config": scale}
