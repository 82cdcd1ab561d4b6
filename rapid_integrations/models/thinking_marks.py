"""The marks around a model's thinking, as its chat template and its prompt know them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import RenderedPrompt


@dataclass(frozen=True)
class Marks:
    """How a model's thinking begins and ends, and whether its prompt has begun it (DeepSeek-R1).

    Attributes:
        opening, closing: the marks.
        opened: whether the prompt ends with the opening.
        headers: texts that may stand before an answer, with thinking or without, and belong to neither (GPT-OSS).
        again: texts that begin further thinking between thinking and answer.
        trailer: a text that may stand behind the answer, and does not belong to it.
        known_by: a text that the template of this family holds, where others have the same marks.
    """

    opening: str
    closing: str
    opened: bool = False
    headers: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    trailer: str = ""
    known_by: str = ""

    @property
    def written(self) -> str:
        """Every text that the marks consist of."""
        return "".join((self.opening, self.closing, *self.headers, *self.again, self.trailer))


_CHANNEL, _TURN = "<|channel|>{}<|message|>", "<|start|>assistant"
_ANSWERING = tuple(_CHANNEL.format(each) for each in ("final", "commentary"))
_MARKS = (
    Marks(
        "<think>", "</think>", headers=("<response>",), trailer="</response>", known_by="<response></response>"
    ),  # Granite 3.3
    Marks("<think>", "</think>"),  # Qwen3, DeepSeek, GLM, Kimi-K2, MiniMax-M2, Nemotron, SmolLM3, ...
    Marks("<seed:think>", "</seed:think>"),
    Marks("[THINK]", "[/THINK]"),  # Mistral
    Marks("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Marks("<think:opensource>", "</think:opensource>"),  # Hunyuan 3
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Marks("<|START_THINKING|>", "<|END_THINKING|>", headers=("<|START_RESPONSE|>", "<|START_TEXT|>")),  # Command
    Marks("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", trailer="[END FINAL RESPONSE]"),  # Apriel
    Marks(
        _CHANNEL.format("analysis"),
        "<|end|>",
        headers=(*_ANSWERING, *(_TURN + each for each in _ANSWERING)),
        again=(_TURN + _CHANNEL.format("analysis"),),
    ),  # GPT-OSS
    Marks(
        "<|think|>",
        "<|end|>",
        headers=("<|content|>", "<|begin|>assistant<|content|>"),
        trailer="<|end|>",
        known_by="<|content|>",
    ),  # Solar Open
)


def marks_of(vocabulary: Vocabulary, prompt: RenderedPrompt) -> Marks | None:
    """Return the marks of the answer to a prompt; None if its thinking cannot be told apart.

    Args:
        vocabulary: the model's.
        prompt: what the target reads. One that did not go through the chat template gives None.
    """
    if not prompt.templated:
        return None
    own = prompt.text[max((end for _, end in prompt.data_spans), default=0) :]  # what the template writes at the end
    known = str(vocabulary.tokenizer.chat_template or "") + own
    # Some templates only take the thinking out of earlier answers, and name no more than its end for that.
    closed = (each for each in _MARKS if each.closing in known and each.known_by in known)
    found = next((each for each in closed if each.opening in known or not each.headers), None)
    if found is None:
        return None
    opened = own.rstrip().endswith(found.opening)
    return replace(found, opened=opened)


def shown_tokens(vocabulary: Vocabulary, marks: Marks | None) -> frozenset[int]:
    """Return the control tokens that marks consist of. A text without them would run thinking and answer together."""
    if marks is None:
        return frozenset()
    return frozenset(index for token, index in vocabulary.added_tokens.items() if token and token in marks.written)
