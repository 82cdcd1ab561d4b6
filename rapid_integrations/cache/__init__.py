"""KV caches that are written in place and rolled back in O(1)."""

from rapid_integrations.cache.kv_cache import CAPACITY_BUCKET, Buffers, KVCache
from rapid_integrations.cache.rows import Rows

__all__ = ["CAPACITY_BUCKET", "Buffers", "KVCache", "Rows"]
