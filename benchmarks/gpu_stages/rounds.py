"""What lies between the passes, and whole rounds."""

from __future__ import annotations

import torch

from benchmarks.gpu_stages import CONTEXTS, DEVICE, DRY, RETRIEVAL, ROUND, VOCAB, Say
from benchmarks.gpu_stages.model import random_lm
from benchmarks.gpu_stages.timing import wall_ms
from rapid_integrations.benchmarks.shapes import random_cache
from rapid_integrations.decoding.draft_length import FixedDraftLength
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.proposers.drafter import DrafterProposer
from rapid_integrations.sampling import Law, Ops, Penalties, Randomness, TorchOps, verify
from rapid_integrations.sampling.rows import TorchRows


def _ops() -> Ops:
    return TorchOps(TorchRows()) if DRY else ops_for(torch.device(DEVICE))


def law(say: Say) -> None:
    """What lies between the passes: the law at a position, its acceptance, a drawn token; milliseconds on the host."""

    z, q = (3 * torch.randn(ROUND, VOCAB, device=DEVICE) for _ in range(2))
    ops = _ops()
    rng = Randomness(0, ops)
    for name, made in {
        "greedy target": Law("target", ops=ops),
        "greedy auto": Law("augmented", ops=ops),
        "greedy eta 10": Law("augmented", eta=10.0, ops=ops),
        "sampled auto": Law("augmented", temperature=1.0, ops=ops),
    }.items():
        form = lambda i, made=made: made.form(z[i % ROUND], None if made.kind == "target" else q[i % ROUND])  # noqa: E731
        say(law=name, position_ms=wall_ms(lambda: form(1), repeats=20))
    sampled = Law("augmented", temperature=1.0, ops=ops)
    proposed = [sampled.propose(q[i]) for i in range(ROUND - 1)]
    say(
        draw_ms=wall_ms(lambda: rng.draw(proposed[0]), repeats=20),
        verify_8_ms=wall_ms(
            lambda: verify(
                [int(p.argmax()) for p in proposed], proposed, lambda i: sampled.form(z[i], q[i]), rng, None, ops
            )
        ),
        argmax_ms=wall_ms(lambda: int(z[0].argmax()), repeats=20),
    )
    draft, uniforms = (
        torch.stack([p.argmax() for p in proposed]),
        torch.rand(ROUND + 1, dtype=torch.float64, device=DEVICE),
    )
    drawn, rows = torch.stack(proposed), ops.rows
    assert rows is not None, "a GPU decides rounds itself"
    say(
        rows_laws_ms=wall_ms(lambda: sampled.form_rows(z, q), repeats=20),
        rows_round_ms=wall_ms(
            lambda: rows.verify(sampled.form_rows(z, q), draft, drawn, uniforms).tolist(), repeats=20
        ),
    )


def rounds(say: Say) -> None:
    """The real loop over random weights: seconds a round by phase. (Nothing is accepted; the costs are the point.)"""

    lm = random_lm()
    device = torch.device(DEVICE)
    for length in (CONTEXTS[0], CONTEXTS[-1]):
        for temperature in (0.0, 1.0):
            ids = [(7 * i) % VOCAB for i in range(length + 1)]
            made = Law("augmented", temperature=temperature, ops=_ops())
            rules = Rules(made, VOCAB, Penalties(1.0, ids, VOCAB, device))
            target = Reader(lm, ids, length + 65, random_cache(lm, length, 65))
            reader = Reader(lm, ids[: RETRIEVAL + 1], RETRIEVAL + 65, random_cache(lm, RETRIEVAL, 65))
            drafter = Drafter(reader, rules)
            recorder = Recorder(device)
            recorder.start_decoding()
            run_alone(
                decode(
                    target=target,
                    proposer=DrafterProposer(drafter, FixedDraftLength(8)),
                    scorer=drafter,
                    rules=rules,
                    stopping=Stopping(frozenset(), 12, TextStream(lambda tokens: "x" * len(tokens))),
                    rng=Randomness(0, made.ops),
                    recorder=recorder,
                    emit=lambda taken: None,
                )
            )
            say(
                length=length,
                temperature=temperature,
                rounds=recorder.rounds,
                tokens=recorder.tokens,
                ms_a_round=1e3 * recorder.decode_s / recorder.rounds,
                # What is no pass: laws, verdict, and the host's own work. A drafter's pass is part of "propose".
                between_ms=1e3 * (recorder.decode_s - sum(recorder.seconds.values())) / recorder.rounds,
                **{f"{name}_ms": 1e3 * s / recorder.rounds for name, s in recorder.seconds.items()},
            )
            del target, reader, drafter
            torch.cuda.empty_cache()
