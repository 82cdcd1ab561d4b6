"""Two processes that use one cache folder at once: models' copies, prefixes and embeddings; each answers as alone."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.unit.models.test_loader import MERGES, write_gguf

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("error")
from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
gguf, folder, document = sys.argv[1:]
answers = []
print("ready", flush=True)
sys.stdin.readline()
with RapidEngine.from_pretrained(
    gguf,
    dtype="float32",
    embedder=HashEmbedder(),
    compression=CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2),
    sampling=SamplingParams(max_new_tokens=6),
    prefix_cache_bytes=0,
    prefix_cache_dir=folder + "/prefixes",
    embedding_cache=folder + "/embeddings.sqlite",
) as engine:
    for question in ("which words?", "and why?", "since when?"):
        prompt = Prompt.from_context(document, question)
        answers.append(engine.generate(prompt, apply_chat_template=False).token_ids)
print(json.dumps(answers))
"""


def start(gguf, folder, document):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, gguf, folder, document],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "RAPID_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
        },
    )


def answers_of(process):
    stdout, stderr = process.communicate("\n", timeout=300)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1])


@pytest.mark.process
def test_two_processes_share_every_cache(tmp_path, kernels, children):
    tokenizer = byte_tokenizer(merges=MERGES, extra_tokens=("<|endoftext|>",))  # which transformers would add
    gguf = tmp_path / "tiny.gguf"
    write_gguf(gguf, tiny_model("qwen2", 1, vocab_size=len(tokenizer)), tokenizer, MERGES)
    document = words(4, 250)
    (tmp_path / "alone").mkdir()
    if kernels.exists():  # compiled already
        for folder in (tmp_path, tmp_path / "alone"):
            shutil.copytree(kernels, folder / "home" / "kernels")
    together = [start(gguf, tmp_path, document) for _ in range(2)]
    for process in together:
        assert process.stdout.readline() == "ready\n"
    for process in together:  # both begin only now
        process.stdin.write("\n")
        process.stdin.flush()
    found = [answers_of(process) for process in together]
    done = children.run(PROGRAM, gguf, tmp_path / "alone", document, RAPID_HOME=str(tmp_path / "alone" / "home"))
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout.splitlines()[-1])
    assert found == [alone, alone] and all(alone)
    assert [path.name for path in (tmp_path / "home" / "dequantised").glob(".partial*")] == []
    assert list((tmp_path / "prefixes").glob("*.safetensors"))
    assert not list((tmp_path / "prefixes").glob(".partial*"))
