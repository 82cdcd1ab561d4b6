from gguf.constants import GGML_QUANT_SIZES

from rapid_integrations.models.gguf.header import BLOCKS


def test_the_sizes_of_blocks_are_those_of_the_gguf_package():
    theirs = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    assert BLOCKS and {kind: theirs[kind] for kind in BLOCKS} == BLOCKS
