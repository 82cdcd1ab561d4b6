"""Models in GGUF files: their blocks are computed with as they are, or dequantised by transformers."""
