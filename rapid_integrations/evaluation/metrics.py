"""Scores of answers, each in [0, 1], as the benchmarks define them.

exact_match, token_f1   SQuAD's, as SCROLLS, L-Eval and InfiniteBench use them
rouge                   ROUGE-1, -2, -L and -Lsum (F-measure) by Google's rouge-score
fact_recall             the share of the expected strings in the answer (RULER's string match)
letters_in, ...         the letter in a free answer to a multiple-choice question, one rule per benchmark
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
    """Return `text` in lower case without punctuation, articles and extra white space (in SQuAD's order)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the normalised answer is one of the normalised references, else 0."""
    return float(any(normalise(answer) == normalise(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Return the best F1 of the bags of normalised words over `references`. It is 0 if they share no word."""
    return max((_f1(normalise(answer).split(), normalise(reference).split()) for reference in references), default=0.0)


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    common = sum((Counter(given) & Counter(wanted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def fact_recall(answer: str, facts: Sequence[str]) -> float:
    """Return the share of `facts` that the answer contains, regardless of case.

    Only whole words count: "8398" does not contain "83". (RULER's own measure would find it there.)
    """
    found = (re.search(rf"(?<!\w){re.escape(fact.lower())}(?!\w)", answer.lower()) for fact in facts)
    return sum(match is not None for match in found) / len(facts)


def rouge(answer: str, references: Sequence[str]) -> dict[str, float]:
    """Return rouge1, rouge2, rougeL and rougeLsum, each the best over `references`, without stemming.

    For rougeLsum a sentence is a line, as in rouge-score and InfiniteBench.

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
    """Return the first of A-D in the answer, as L-Eval does for single choices, or "A" if there is none.

    Like the benchmark, this counts an answer without a letter as a guess of A, and an empty one as wrong.
    """
    if answer in "ABCD":  # several letters and nothing else are not a single choice
        return answer
    return next((character for character in answer if character in "ABCD"), "A")


def leval_letters(answer: str) -> str:
    """Return the letters that an answer to a question with several right options gives (L-Eval's Coursera), sorted.

    These are the letters at the very beginning ("BD"). If there are fewer than two, all capital letters before white
    space, a full stop or a bracket are added. If there is none, the result is "A".
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
    """Return the letter after "The correct answer is", with or without brackets, or None if there is none."""
    found = re.search(r"The correct answer is \(([A-D])\)", text := answer.replace("*", ""))
    found = found or re.search(r"The correct answer is ([A-D])", text)
    return found.group(1) if found else None


def infinitebench_choice(answer: str, right: Sequence[str]) -> bool:
    """Return whether an En.MC answer is right by InfiniteBench's rules.

    The first character counts if it is a letter. Otherwise the text counts that follows "answer is:", "answer:",
    "answer is" or "option is", and otherwise the first word that is a letter.

    Args:
        answer: the model's answer.
        right: the right option's letter, and its text, which counts after "answer is" and the like.
    """
    if answer[:1] and answer[0] in "ABCD":
        return answer[0] in right
    text = re.sub(r" {2,}", " ", re.sub(r"[\n\"'.,?!{}]", " ", answer))
    for prefix in ("answer is:", "answer:", "answer is", "option is"):
        if (at := text.find(prefix)) >= 0:
            return any(text[at + len(prefix) + 1 :].startswith(each) for each in right)
    return next((word for word in text.split() if word in "ABCD"), "") in right
