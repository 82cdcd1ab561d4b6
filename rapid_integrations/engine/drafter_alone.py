"""The drafter's own answer to a request, which comes while the target still reads the prompt."""

from __future__ import annotations

from collections.abc import Callable

from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.plan import plan_request
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.engine.request import Asked, Request
from rapid_integrations.models.causal_lm import CausalLM, rows_bytes
from rapid_integrations.structured.held import Held

CLEARLY = 2  # times as many tokens the target has to read at least
WAIT_TOKENS = 512  # that the target has to read at least; it has soon read fewer

Unread = Callable[[CausalLM, list[int]], int]
"""Returns how many tokens of a prompt no kept KV cache of a model holds."""


def comes_first(prompts: PreparedPrompt, models: EngineModels, unread: Unread) -> bool:
    """Whether the drafter's own answer would begin clearly before the request's, which needs both prompts."""
    to_read = unread(models.target, prompts.target_ids)
    return to_read >= max(WAIT_TOKENS, CLEARLY * unread(models.drafter, prompts.drafter_ids))


def fits_beside(prompts: PreparedPrompt, models: EngineModels, sampling: SamplingParams, nbytes: int) -> bool:
    """Whether the KV caches of the request and of the drafter's own answer fit into `nbytes` together.

    If they did not, the request would wait for the answer that is to shorten the wait for it.
    """
    target, drafter = (
        rows_bytes(model, allocated_tokens(len(ids) + sampling.max_new_tokens))
        for model, ids in ((models.target, prompts.target_ids), (models.drafter, prompts.drafter_ids))
    )
    return target + 2 * drafter <= nbytes


def by_drafter_alone(asked: Asked, prompts: PreparedPrompt, models: EngineModels) -> tuple[Request, EngineModels]:
    """Return the request that the drafter answers from its own prompt, and its models.

    It copies tokens from the prompt, which needs no other model.
    """
    alone = EngineModels(models.drafter, models.drafter, None, models.vocabulary, models.vocab_size)
    short = PreparedPrompt(prompts.drafter, prompts.drafter, prompts.drafter_ids, prompts.drafter_ids, None)
    plan = plan_request(SpeculationConfig(law="target", proposer="prompt_lookup"), asked.sampling, alone)
    return Request(asked, short, plan, None, Held(), Recorder(models.drafter.device)), alone
