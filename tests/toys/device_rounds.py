"""Toy requests whose rounds are decided on the host or on a device, and all that is known of their answers."""

from __future__ import annotations

from dataclasses import replace

from rapid_integrations.decoding import device_rounds
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.proposal import ProposerRequest
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.proposers import proposer_class
from rapid_integrations.proposers.suite.table_model import SharedTableLM, TableLM
from rapid_integrations.sampling import Law, Penalties, Randomness, TorchOps
from rapid_integrations.sampling.rows import TorchRows
from tests.toys.requests import ToyRequest

V = 6
ON_DEVICE = TorchOps(TorchRows())
LAWS = [
    Law("target"),
    Law("augmented"),
    Law("target", temperature=0.8, top_p=0.9),
    Law("augmented", temperature=0.8, trust=0.3, relevance=0.9),
    Law("augmented", temperature=1.2, eta=3.0, tail_rule="restore", top_k=4, min_p=0.02),
]
IDS = [f"{law.kind} T={law.temperature} eta={law.eta}" for law in LAWS]


class Counted(Randomness):
    """Counts the uniform numbers that it gives."""

    used = 0

    def _uniform(self):
        self.used += 1
        return super()._uniform()


class Seen:
    """Keeps what an observer is shown, without the times."""

    def __init__(self, *_):
        self.rounds = []

    def observe(self, seen):
        z = [[round(each, 4) for each in row] for row in seen.z.tolist()]
        self.rounds.append((seen.draft, seen.places, seen.source, z, seen.accepted, seen.corrected, seen.taken))


class Decisions:
    """Counts how many rounds the device decided."""

    def __init__(self, monkeypatch):
        self.rounds = 0
        read = device_rounds.numbers_of

        def counted(verdict):
            self.rounds += 1
            return read(verdict)

        monkeypatch.setattr(device_rounds, "numbers_of", counted)


def result_of(toy: ToyRequest, ops, seed=1):
    """Return all that is known of an answer: tokens, statistics, what observers saw, caches, and chance used."""
    observers = []

    def observer(*given):
        observers.append(Seen(*given))
        return observers[-1]

    rng = Counted(seed)
    run = replace(toy, law=replace(toy.law, ops=ops), observer=observer).run(rng)
    recorder = run.recorder
    counts = (recorder.rounds, recorder.drafted, recorder.accepted, recorder.tokens)
    texts = [(reader.tokens, reader.cache.length) for reader in (run.target, run.drafter)]
    return run.tokens, run.text, run.finish_reason, counts, texts, rng.used, observers[0].rounds


def toy(law, proposer="drafter", length=3, seed=0, device="cpu", **more):
    shared = more.pop("shared", False)
    target = (SharedTableLM if shared else TableLM)(seed, V, device=device)
    drafter = target if shared else TableLM(seed + 1 if seed % 2 else seed, V, device=device)
    models = {"target": target, "drafter": drafter, "vocab_size": V}
    return ToyRequest(law, proposer, length, **{"max_new_tokens": 25, **models, **more})


def decoded(models, law, proposer, rng, repetition=1.0, begin=lambda: None, ops=ON_DEVICE, tokens=8) -> Recorder:
    """Decode with a target, a drafter and a model that proposes, without an engine; `begin` is called before rounds."""
    prompt = (0, 1, 2, 3, 3, 3, 3, 0, 1, 2)
    device, width = models[0].device, models[0].vocab_size
    rules = Rules(replace(law, ops=ops), width, Penalties(repetition, prompt, width, device))
    readers = [Reader(lm, prompt, 200, lm.new_cache(200)) for lm in models]
    for reader in readers:
        run_alone(reader.prefill())
    scorer, draft_lm = (Drafter(reader, rules) for reader in readers[1:])
    asked = ProposerRequest(prompt, prompt, rules, DraftLengths.fixed(4), scorer, draft_lm)
    recorder = Recorder(device)
    recorder.start_decoding()
    begin()
    run_alone(
        decode(
            target=readers[0],
            proposer=proposer_class(proposer).from_request(asked),
            scorer=scorer if law.needs_drafter else None,
            rules=rules,
            stopping=Stopping(frozenset(), tokens, TextStream(lambda written: "x" * len(written))),
            rng=rng,
            recorder=recorder,
            emit=lambda taken: None,
        )
    )
    return recorder
