"""Loads model folders and GGUF files with values changed at random, in bounded memory; run by test_hostile_models.py.

Prints what is wrong, one line each: an error that is none of ours, or a good model that does not load afterwards.
"""

import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch

from rapid_integrations.config import SamplingParams
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import RapidError
from rapid_integrations.models.loader import load
from tests.toys.gguf_file import write_gguf
from tests.toys.models import byte_tokenizer, tiny_model

SECONDS = 60
MEMORY = 6 << 30  # bytes beyond what is mapped at the start
NASTY = (
    *(
        0,
        -1,
        1,
        2,
        3,
        7,
        2**31,
        2**63,
        2**64,
        10**30,
        -(10**30),
        10_000_000,
        0.5,
        -0.0,
        1e308,
        float("inf"),
        float("nan"),
    ),
    *(None, True, False, "", "x", "\ud800", "a" * 100_000, [], {}, [[]], [None], {"": None}, [0] * 1000, "0", "-5"),
    *("../../etc/passwd", "{{ 1 }}", {"type": "nothing"}, [10**9, -1]),
)
FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
MERGES = (("t", "h"),)


def places(value, path=()):
    """Yield the path of every value inside, a few of long lists."""
    yield path
    if isinstance(value, dict):
        for key in list(value)[:60]:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 3)):
            yield from places(value[index], (*path, index))


def changed(content, rng):
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice([path for path in places(content) if path] or [()])
        if not path:
            return rng.choice(NASTY)
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.2 and isinstance(holder, dict):
            holder.pop(path[-1])
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(NASTY))
    return content


def nested(depth):
    return "[" * depth + "]" * depth


def damage_folder(folder, rng):
    file = folder / rng.choice(FILES)
    if rng.random() < 0.05:
        file.write_text(nested(rng.choice((100, 100_000))))
        return file.name
    content = json.loads(file.read_text())
    file.write_text(json.dumps(changed(content, rng)))
    return file.name


def damage_safetensors(folder, rng):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.5:
        header = json.loads(data[8 : 8 + length])
        head = json.dumps(changed(header, rng)).encode("utf-8", "surrogatepass")
        path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + length :])
    else:
        for _ in range(rng.choice((1, 3, 10))):
            data[rng.randrange(min(len(data), length + 64))] = rng.randrange(256)
        path.write_bytes(data)
    return path.name


def damage_gguf(path, rng):
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(8, min(len(data), 20_000))
        if rng.random() < 0.5:
            data[at] = rng.randrange(256)
        else:
            number = rng.choice((2**60, 2**63, 2**64 - 1, 2**32 - 1, 0, 10_000_000)) % 2**64
            data[at : at + 8] = number.to_bytes(8, "little")
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    path.write_bytes(data)
    return path.name


def describe_gguf(path, rng):
    keys = (
        *("block_count", "context_length", "embedding_length", "feed_forward_length", "attention__head_count"),
        *("attention__head_count_kv", "rope__freq_base", "attention__layer_norm_rms_epsilon", "vocab_size"),
    )
    key = rng.choice([f"qwen2__{key}" for key in keys] + ["general__alignment", "tokenizer__ggml__bos_token_id"])
    value = rng.choice((0, 1, 2, 7, 2**31, 2**32 - 1, 10_000_000, -1.0, float("nan"), 1e30, "x", "", None))
    tokenizer = byte_tokenizer(merges=MERGES)
    model = tiny_model("qwen2", 1, vocab_size=len(tokenizer))
    write_gguf(path, model, tokenizer, MERGES, **{key: value})
    return f"{key}={value}"


def bound():
    import resource

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)


def timed_out(*_):
    raise TimeoutError(f"{SECONDS} s")


def try_it(path):
    """Return what is wrong with how the model is loaded and asked, or None."""
    signal.alarm(SECONDS)
    try:
        loaded = load(path, dtype="float32")
        with RapidEngine(loaded) as engine:
            engine.generate("hello there", sampling=SamplingParams(max_new_tokens=4))
    except RapidError:
        return None
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} at {place.filename}:{place.lineno}"
    finally:
        signal.alarm(0)
    return None


def main(kind, seed, count, kernels):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, timed_out)
    scratch = Path(tempfile.mkdtemp())
    os.environ["RAPID_HOME"] = str(scratch / "home")
    if Path(kernels).exists():  # compiled already
        shutil.copytree(kernels, scratch / "home" / "kernels")
    good, gguf = scratch / "good", scratch / "gguf"
    tiny_model("llama", 1).save_pretrained(good)
    byte_tokenizer().save_pretrained(good)
    gguf.mkdir()
    tokenizer = byte_tokenizer(merges=MERGES)
    write_gguf(gguf / "good.gguf", tiny_model("qwen2", 1, vocab_size=len(tokenizer)), tokenizer, MERGES)
    assert try_it(good) is None and try_it(gguf / "good.gguf") is None
    bound()
    for number in range(seed, seed + count):
        rng = random.Random(number)
        target = scratch / f"case-{number}"
        print(f"case {kind} {number}", file=sys.stderr, flush=True)
        if kind in ("folder", "safetensors"):
            shutil.copytree(good, target)
            what = (damage_folder if kind == "folder" else damage_safetensors)(target, rng)
        else:
            target.mkdir()
            shutil.copy(gguf / "good.gguf", target / "it.gguf")
            what = (damage_gguf if rng.random() < 0.6 else describe_gguf)(target / "it.gguf", rng)
        if (wrong := try_it(target)) is not None:
            print(f"{kind} {number} ({what}): {wrong}", flush=True)
        elif number % 10 == 0 and (wrong := try_it(good)) is not None:
            print(f"{kind} {number} ({what}): the next load fails: {wrong}", flush=True)
        shutil.rmtree(target)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
