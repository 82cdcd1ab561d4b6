"""Two processes that use one cache folder at once: models' copies, prefixes and embeddings; each answers as alone."""

import json
import shutil

import pytest

from tests.toys.gguf_file import write_gguf
from tests.toys.loaded_logits import MERGES
from tests.toys.models import byte_tokenizer, tiny_model, words

PROGRAM = """
import json, os, sys, warnings
warnings.simplefilter("error")
from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
gguf, folder, document, *processes = sys.argv[1:]
answers = []
read, write = os.pipe()
twins = []
for _ in processes:  # forks of this one, which has imported everything: two processes, in half of the time
    twin = os.fork()
    if twin == 0:
        os.close(write)
        os.read(read, 1)  # it ends when this one lets go: all begin at once
        break
    twins.append(twin)
else:
    os.close(write)
    if twins:
        sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(twin, 0)[1]) for twin in twins))
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
print(json.dumps(answers) + "\\n", end="", flush=True)
"""


def answers_of(children, gguf, folder, document, *processes):
    """Return what each of the processes answers, or what one does if none are named."""
    done = children.run(PROGRAM, gguf, folder, document, *processes, seconds=300, RAPID_HOME=str(folder / "home"))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


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
    found = answers_of(children, gguf, tmp_path, document, "one", "two")
    (alone,) = answers_of(children, gguf, tmp_path / "alone", document)
    assert found == [alone, alone] and all(alone)
    assert [path.name for path in (tmp_path / "home" / "dequantised").glob(".partial*")] == []
    assert list((tmp_path / "prefixes").glob("*.safetensors"))
    assert not list((tmp_path / "prefixes").glob(".partial*"))
