"""The law computed slowly, in Python floats, straight from the papers' formulas; shares no code with the engine."""

import math
from collections.abc import Callable, Collection, Sequence

from rapid_integrations.sampling import Law


def softmax(scores: Sequence[float]) -> list[float]:
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    return [weight / math.fsum(weights) for weight in weights]


def normalised(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def penalised(logits: Sequence[float], seen: Collection[int], penalty: float) -> list[float]:
    """CTRL (arXiv 1909.05858), with the sign taken care of."""
    return [
        logit if token not in seen else logit * penalty if logit < 0 else logit / penalty
        for token, logit in enumerate(logits)
    ]


def lowered(logits: Sequence[float], output: Sequence[int], frequency: float, presence: float) -> list[float]:
    """OpenAI's definition: mu[j] - c[j] * alpha_frequency - (c[j] > 0) * alpha_presence."""
    counts = [list(output).count(token) for token in range(len(logits))]
    return [logit - c * frequency - (c > 0) * presence for logit, c in zip(logits, counts, strict=True)]


def without(logits: Sequence[float], tokens: Collection[int]) -> list[float]:
    """Logits that make some tokens impossible."""
    return [-math.inf if token in tokens else logit for token, logit in enumerate(logits)]


def augmented(z: Sequence[float], drafter_logits: Sequence[float], law: Law) -> list[float]:
    """Eq. 6 on logits, and a tail rule; untruncated."""
    temperature = law.temperature or 1.0
    p = softmax([x / temperature for x in z])
    q = softmax([x / temperature for x in drafter_logits])
    moved = [law.tail_rule == "restore" or q_x >= law.tail_alpha * max(q) for q_x in q]
    trust = 1.0 if law.eta == "nearest" else law.trust
    eta = automatic_eta(p, q, moved, law.relevance, trust) if isinstance(law.eta, str) else law.eta
    z_hat = [z_x + eta * temperature * (q_x - p_x) * moves for z_x, p_x, q_x, moves in zip(z, p, q, moved, strict=True)]
    p_hat = softmax([x / temperature for x in z_hat])
    if law.tail_rule == "restore":
        floor = law.tail_alpha * max(p_hat)
        p_hat = normalised([p_x if h_x < floor else h_x for p_x, h_x in zip(p, p_hat, strict=True)])
    return p_hat


def automatic_eta(
    p: Sequence[float], q: Sequence[float], moved: Sequence[bool], relevance: float, trust: float = 0.0
) -> float:
    """relevance * (1 - (1 - trust) * TV(p, q)) * eta*, in [0, 50], which all but minimises KL(q || p shifted by it)."""
    shifted = [(p_x, q_x, q_x - p_x) for p_x, q_x, moves in zip(p, q, moved, strict=True) if moves and q_x != p_x]
    rest = math.fsum(p_x for p_x, q_x, moves in zip(p, q, moved, strict=True) if not moves or q_x == p_x)

    def slope(eta: float) -> float:
        """Return the divergence's derivative: what the shift is worth on average under p_hat, less that under q."""
        best = max(0.0, max((eta * s_x for p_x, _, s_x in shifted if p_x > 0), default=0.0))
        weights = [p_x * math.exp(eta * s_x - best) if p_x > 0 else 0.0 for p_x, _, s_x in shifted]
        total = math.fsum(weights) + rest * math.exp(-best)
        return math.fsum((w_x / total - q_x) * s_x for w_x, (_, q_x, s_x) in zip(weights, shifted, strict=True))

    low, high, end = 0.0, 50.0, 0.01 * slope(0.0)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < end else (low, middle)
    distance = math.fsum(abs(p_x - q_x) for p_x, q_x in zip(p, q, strict=True)) / 2
    return relevance * (1 - (1 - trust) * distance) * low


def truncated(probs: Sequence[float], law: Law) -> list[float]:
    """Top-k, top-p, min-p, one after the other."""
    order = sorted(range(len(probs)), key=lambda token: -probs[token])
    kept = list(probs)
    if law.top_k:
        kept = normalised([p if p >= probs[order[min(law.top_k, len(order)) - 1]] else 0.0 for p in kept])
    mass = 0.0
    for token in order:
        if mass >= law.top_p:
            kept[token] = 0.0
        mass += kept[token]
    kept = normalised(kept)
    return normalised([p if p >= law.min_p * max(kept) else 0.0 for p in kept])


def reference_law(
    z: Sequence[float], drafter_logits: Sequence[float], law: Law, allowed: Collection[int] | None = None
) -> list[float]:
    """What a token follows at one position; "paper" has no law of its own and gets p_hat."""
    allowed = range(len(z)) if allowed is None else allowed
    if law.kind == "target":
        scores = softmax([x / (law.temperature or 1.0) for x in z])
    else:
        scores = augmented(z, drafter_logits, law)
    if law.greedy:
        best = max(sorted(allowed), key=lambda token: scores[token])
        return [float(token == best) for token in range(len(scores))]
    for candidate in (truncated(scores, law), scores):
        masked = [p if token in allowed else 0.0 for token, p in enumerate(candidate)]
        if sum(masked) > 0:
            return normalised(masked)
    raise AssertionError("no probability on any allowed token")


def joint_law(
    law_after: Callable[[tuple[int, ...]], Sequence[float]], length: int, eos: Collection[int] = ()
) -> dict[tuple[int, ...], float]:
    """Return the distribution of a text of at most `length` tokens, each following the law after the ones before."""
    outcomes: dict[tuple[int, ...], float] = {}
    open_texts = [((), 1.0)]
    while open_texts:
        text, probability = open_texts.pop()
        if len(text) == length or (text and text[-1] in eos):
            outcomes[text] = probability
            continue
        open_texts += [((*text, x), probability * p_x) for x, p_x in enumerate(law_after(text)) if p_x > 0]
    return outcomes
