"""Which requests may run beside each other."""

import pytest

from rapid_integrations import SamplingParams
from rapid_integrations.engine.admission import Admission
from rapid_integrations.errors import OutOfMemoryError
from tests.toys.errors import coded
from tests.toys.jobs import ToyJob, WatchedLM
from tests.unit.engine.test_engine import PROMPT, engine


class NoWorker:
    def wake(self):
        pass


def job(nbytes):
    return ToyJob(NoWorker(), WatchedLM(), [], nbytes)


def test_requests_fit_together_up_to_the_budget():
    admission = Admission(10)
    first, second, third = job(6), job(4), job(1)
    for each in (first, second):
        assert admission.fits(each)
        admission.enter(each)
    assert not admission.fits(third)
    admission.leave(second)
    assert admission.fits(third)
    admission.leave(second)  # it is counted no more
    admission.leave(first)
    assert admission.fits(job(10)) and not admission.fits(job(11))


def test_what_could_never_run_is_refused_with_both_numbers():
    admission = Admission(1000)
    admission.require(1000, 10)
    said = r"needs 1,001 bytes of KV cache for 11 tokens.* allows 1,000 "
    with pytest.raises(OutOfMemoryError, match=said, check=coded("out_of_memory.kv_budget")):
        admission.require(1001, 11)


def test_the_engine_refuses_it_before_anything_runs():
    with engine() as roomy:
        roomy.generate(PROMPT)
        need = roomy.kv_bytes
    with engine(kv_cache_bytes=need // 2) as narrow:
        with pytest.raises(OutOfMemoryError, match=f"kv_cache_bytes allows {need // 2:,} "):
            narrow.stream(PROMPT)
        assert narrow.running_requests == narrow.waiting_requests == 0
        short = SamplingParams(max_new_tokens=2)
        assert narrow.generate("hello", sampling=short).token_ids  # the next one fits
