"""The panels of `--help`."""

MODELS, RETRIEVAL, DOCUMENTS = "Models", "Retrieval", "Documents"
SPECULATION, SAMPLING, OUTPUT = "Speculation", "Sampling", "Output"
