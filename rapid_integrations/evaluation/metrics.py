"""Scores of an answer, each in [0, 1], as the benchmarks define them.

exact_match, token_f1   SQuAD's, as SCROLLS, L-Eval and InfiniteBench use them
rouge                   ROUGE-1, -2, -L and -Lsum (F-measure) by Google's rouge-score
fact_recall             the share of wanted strings that the answer holds (RULER's string match)
letters_in, ...         the letter that a free answer to a multiple-choice question gives, one rule per benchmark
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from rapid_integrations.errors import MissingExtraError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def normalise(text: str) -> str:
    """Return `text` in lower case without punctuation, articles and superfluous white space (SQuAD's order)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the normalised answer is one of the normalised references, else 0."""
    return float(any(normalise(answer) == normalise(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Return the best F1, over `references`, of the bags of normalised words; 0 without a word in common."""
    return max((_f1(normalise(answer).split(), normalise(reference).split()) for reference in references), default=0.0)


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    common = sum((Counter(given) & Counter(wanted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def fact_recall(answer: str, facts: Sequence[str]) -> float:
    """Return the share of `facts` that stand in the answer, upper and lower case alike.

    As whole words: "83" does not stand in "8398" (RULER, whose measure this is, would find it there).
    """
    found = (re.search(rf"(?<!\w){re.escape(fact.lower())}(?!\w)", answer.lower()) for fact in facts)
    return sum(match is not None for match in found) / len(facts)


def rouge(answer: str, references: Sequence[str]) -> dict[str, float]:
    """Return rouge1, rouge2, rougeL and rougeLsum, each the best over `references`; no stemming.

    For rougeLsum a sentence is a line, as rouge-score has it and InfiniteBench takes it.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtraError(feature="ROUGE", extra="eval") from None
    scorer = RougeScorer(list(ROUGES), use_stemmer=False)
    scores = [scorer.score(reference, answer) for reference in references]
    return {name: max((float(score[name].fmeasure) for score in scores), default=0.0) for name in ROUGES}


# --- letters of multiple-choice answers -----------------------------------------------------------------------------


def leval_letter(answer: str) -> str:
    """Return the first of A-D anywhere in the answer, as L-Eval reads single choices; "A" where there is none.

    (The benchmark counts an answer without a letter as a guess of A, an empty one as wrong; so it is here.)
    """
    if answer in "ABCD":  # several letters and nothing else are no single choice
        return answer
    return next((character for character in answer if character in "ABCD"), "A")


def leval_letters(answer: str) -> str:
    """Return the letters that an answer to a question with several right options gives (L-Eval's Coursera), sorted.

    Letters at the very beginning ("BD"); where that is fewer than two, they and all capital letters before white
    space, a full stop or a bracket; "A" where there is none.
    """
    if answer in "ABCD":
        return answer
    opening = re.match(r"[ABCD]*", answer)
    leading = opening.group() if opening else ""
    if len(leading) > 1:
        return "".join(sorted(set(leading)))
    rest = answer[len(leading) :].split("Question")[0]
    found = leading + "".join(re.findall(r"[A-Z](?=[\s.)])", rest))
    return "".join(sorted(set(found) & set("ABCD"))) or "A"


def leval_reference_letters(reference: str) -> str:
    """Return the letters of the first word of an L-Eval reference: "BD", or "B" of "(B) They were ..."."""
    return "".join(character for character in reference.split()[0] if character in "ABCD") or "A"


def longbench_v2_letter(answer: str) -> str | None:
    """Return the letter behind "The correct answer is", bracketed or bare; None where the answer does not say so."""
    found = re.search(r"The correct answer is \(([A-D])\)", text := answer.replace("*", ""))
    found = found or re.search(r"The correct answer is ([A-D])", text)
    return found.group(1) if found else None


def infinitebench_choice(answer: str, right: Sequence[str]) -> bool:
    """Return whether an En.MC answer is right, as InfiniteBench reads it.

    The first character counts where it is a letter; else what follows "answer is:", "answer:", "answer is" or "option
    is"; else the first word that is a letter.

    Args:
        answer: as the model wrote it.
        right: the right option's letter, and its text, which counts behind "answer is" and its like.
    """
    if answer[:1] and answer[0] in "ABCD":
        return answer[0] in right
    text = re.sub(r" {2,}", " ", re.sub(r"[\n\"'.,?!{}]", " ", answer))
    for prefix in ("answer is:", "answer:", "answer is", "option is"):
        if (at := text.find(prefix)) >= 0:
            return any(text[at + len(prefix) + 1 :].startswith(each) for each in right)
    return next((word for word in text.split() if word in "ABCD"), "") in right
