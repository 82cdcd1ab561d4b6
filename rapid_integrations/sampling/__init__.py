"""The mathematics of decoding: pure functions over tensors. Imports torch and nothing else.

Glossary, used throughout the package (arXiv 2502.20330 where it has a symbol):

    z        target logits, (V,), after penalties
    p        target distribution, softmax(z / T), given the long context
    q        drafter distribution, softmax of its logits / T, given the compressed context; of several drafters, the
             weighted mean of theirs
    p_hat    retrieval-augmented target distribution: softmax(z / T + eta * (q - p)), with a tail rule
    eta      strength of the knowledge transfer from drafter to target; "auto" and "nearest" choose it at each position
    T        temperature; greedy is the argmax of the law formed at T = 1
    K        draft length (the paper's gamma)
    V        vocabulary width shared by target and drafter
    law      what the output follows at a position: p, or p_hat, after truncation (top-k, top-p, min-p) and the mask
    mask     which tokens a request's constraint allows at a position, (V,) bool
    proposed the distribution that a draft token was really drawn from; None is a point mass
    ops      who computes vectors of width V: `TorchOps`, the reference, or kernels that agree with it up to rounding
    share    a uniform number in [0, 1), which decides a draw
"""

from rapid_integrations.sampling.augmented_target import augmented_target
from rapid_integrations.sampling.constraint import Constraint, allowed_prefix, mask
from rapid_integrations.sampling.law import Law
from rapid_integrations.sampling.ops import Ops
from rapid_integrations.sampling.penalties import Penalties
from rapid_integrations.sampling.randomness import Randomness
from rapid_integrations.sampling.torch_ops import TorchOps
from rapid_integrations.sampling.trees import ROOT, TreeVerdict, verify_tree
from rapid_integrations.sampling.truncation import truncate
from rapid_integrations.sampling.verification import (
    Verdict,
    acceptance_probability,
    paper_residual,
    verify,
)

__all__ = [
    "ROOT",
    "Constraint",
    "Law",
    "Ops",
    "Penalties",
    "Randomness",
    "TorchOps",
    "TreeVerdict",
    "Verdict",
    "acceptance_probability",
    "allowed_prefix",
    "augmented_target",
    "mask",
    "paper_residual",
    "truncate",
    "verify",
    "verify_tree",
]
