"""The settings of a request: small frozen models that refuse unknown keys. Imports no torch.

    settings     the base: frozen, and errors from this package's own tree
    names        what is said of unknown names
    sampling     how tokens are drawn
    structured   the required form of an answer
    speculation  the law of an answer, and how its tokens are drafted
    compression  what of a document the drafter reads
    models       how models are stored
    home_folder  where this package keeps files

Other packages take all of it from here.
"""

from rapid_integrations.config.compression import PAPER_RETRIEVAL, CompressionConfig
from rapid_integrations.config.home_folder import home
from rapid_integrations.config.models import DEFAULT_EMBEDDER, DEFAULT_TARGET, KVDtype, Quantization, SparsePrefill
from rapid_integrations.config.names import SETTING_ALIASES, refuse_unknown, require_known, unknown_name
from rapid_integrations.config.sampling import ABSTENTION, SamplingFields, SamplingParams
from rapid_integrations.config.settings import Settings, explain_validation_error, kind_of
from rapid_integrations.config.speculation import (
    PAPER_DRAFT_LENGTH,
    Eta,
    LawName,
    SpeculationConfig,
    SpeculationFields,
    TailRule,
)
from rapid_integrations.config.structured import StructuredOutput

__all__ = [
    "ABSTENTION",
    "DEFAULT_EMBEDDER",
    "DEFAULT_TARGET",
    "PAPER_DRAFT_LENGTH",
    "PAPER_RETRIEVAL",
    "SETTING_ALIASES",
    "CompressionConfig",
    "Eta",
    "KVDtype",
    "LawName",
    "Quantization",
    "SamplingFields",
    "SamplingParams",
    "Settings",
    "SparsePrefill",
    "SpeculationConfig",
    "SpeculationFields",
    "StructuredOutput",
    "TailRule",
    "explain_validation_error",
    "home",
    "kind_of",
    "refuse_unknown",
    "require_known",
    "unknown_name",
]
