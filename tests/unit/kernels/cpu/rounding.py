"""Where two ways of computing may differ by more than rounding, because rounding decides between two outcomes."""


def rounding_decides(probs, top_k, top_p, min_p):
    """Whether a token lies on an edge of a truncation."""
    best = probs.double().sort(descending=True).values
    if 0 < top_k < len(best):
        best = best[best >= best[top_k - 1]]
    on_an_edge = ((best.cumsum(-1) / best.sum() - top_p).abs() < 1e-6) & (top_p < 1.0)
    return bool(on_an_edge.any() or ((best / best[0] - min_p).abs() < 1e-6).any())
