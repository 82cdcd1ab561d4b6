"""Checkpoints in safetensors whose weights are quantised: GPTQ, AWQ, compressed-tensors, FP8 and MXFP4."""
