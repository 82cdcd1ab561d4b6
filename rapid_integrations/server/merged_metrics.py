"""The metrics of several replicas as one page for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families


def merged_metrics(pages: Mapping[str, bytes]) -> bytes:
    """Return the pages of all replicas as one, in which each value has the label `replica`.

    Args:
        pages: what each replica's /metrics says, by the replica's name.
    """
    families: dict[str, Metric] = {}
    for replica, page in sorted(pages.items()):
        for found in text_string_to_metric_families(page.decode()):
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                family.add_sample(sample.name, {**sample.labels, "replica": replica}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families:
    """What a registry collects."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
