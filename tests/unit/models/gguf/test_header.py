import gguf
import pytest
from gguf.constants import GGML_QUANT_SIZES

from rapid_integrations.models.gguf.header import BLOCKS, read_header


def test_the_sizes_of_blocks_are_those_of_the_gguf_package():
    theirs = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    assert BLOCKS and {kind: theirs[kind] for kind in BLOCKS} == BLOCKS


def test_arrays_are_read_whole(tmp_path):
    words, numbers = [f"é{n}" for n in range(300)], list(range(-150, 150))
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_array("words", words)
    writer.add_array("numbers", numbers)
    writer.add_array("few", [0.5, 2.0])
    writer.add_uint32("number", 9)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "a.gguf")
    assert header.metadata["words"] == header.metadata["numbers"] == 300
    assert header.array("words") == words and header.array("numbers") == numbers
    assert header.array("few") == header.metadata["few"] == [0.5, 2.0]
    for key in ("number", "missing"):
        with pytest.raises(KeyError, match=key):
            header.array(key)
