"""KV caches that are written in place, rolled back in O(1), and share their beginnings."""

from rapid_integrations.cache.kv_cache import CAPACITY_BUCKET, KVCache, distinct_bytes
from rapid_integrations.cache.recorded_state import LayersState, RecordedState, StatePass, StateShape
from rapid_integrations.cache.recurrent_state import RecurrentState, SavedState
from rapid_integrations.cache.rows import Rows
from rapid_integrations.cache.segments import TILE, Buffers, LayerRows, Segment

__all__ = [
    "CAPACITY_BUCKET",
    "TILE",
    "Buffers",
    "KVCache",
    "LayerRows",
    "LayersState",
    "RecordedState",
    "RecurrentState",
    "Rows",
    "SavedState",
    "Segment",
    "StatePass",
    "StateShape",
    "distinct_bytes",
]
