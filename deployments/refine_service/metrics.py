"""Prometheus metrics of the service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REFINE_BUCKETS = (0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30)  # seconds


class Metrics:
    """Counters of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        held = self.registry
        self.requests = Counter(
            "segvigen_requests", "Requests by path and status", ["path", "status"], registry=held
        )
        self.seconds = Histogram(
            "segvigen_request_seconds", "Time to respond", ["path"], registry=held
        )
        self.webhooks = Counter(
            "segvigen_webhooks", "Webhooks by action", ["action"], registry=held
        )
        self.waiting = Gauge("segvigen_live_waiting", "Live requests in the queue", registry=held)
        self.refine_seconds = Histogram(
            "segvigen_live_seconds",
            "Model time of a click",
            buckets=REFINE_BUCKETS,
            registry=held,
        )
        self.cache_hits = Counter("segvigen_live_cache_hits", "Results from memory", registry=held)
        self.loads = Counter(
            "segvigen_live_asset_loads", "Assets loaded into memory", registry=held
        )
        self.refusals = Counter(
            "segvigen_live_refusals",
            "Live requests refused, by reason",
            ["reason"],
            registry=held,
        )
