"""Options that several commands share, in groups: a command takes a group, and the command line shows its fields.

panels              the panels of `--help`
single              options that commands take one by one
template_arguments  NAME=VALUE for chat templates
models              ModelOptions, ServingOptions
speculation         SpeculationOptions
sampling            SamplingOptions
documents           DocumentOptions
groups              turns a command's groups into options
"""

from rapid_integrations.cli.options.documents import DOCUMENTS_HELP, DocumentOptions
from rapid_integrations.cli.options.groups import with_option_groups
from rapid_integrations.cli.options.models import ModelOptions, ServingOptions
from rapid_integrations.cli.options.panels import DOCUMENTS, MODELS, OUTPUT, RETRIEVAL, SAMPLING
from rapid_integrations.cli.options.sampling import SamplingOptions
from rapid_integrations.cli.options.single import AsJson, Device, DrafterQuantized, Dtype, Quantized
from rapid_integrations.cli.options.speculation import SpeculationOptions
from rapid_integrations.cli.options.template_arguments import TemplateArgument, template_arguments

__all__ = [
    "AsJson",
    "DOCUMENTS",
    "DOCUMENTS_HELP",
    "Device",
    "DocumentOptions",
    "DrafterQuantized",
    "Dtype",
    "MODELS",
    "ModelOptions",
    "OUTPUT",
    "Quantized",
    "RETRIEVAL",
    "SAMPLING",
    "SamplingOptions",
    "ServingOptions",
    "SpeculationOptions",
    "TemplateArgument",
    "template_arguments",
    "with_option_groups",
]
