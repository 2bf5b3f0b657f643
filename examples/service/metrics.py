"""Prometheus metrics: the denoising loop for each tier and batch size, and the wait for it apart."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = [0.001 * 10 ** (power / 4) for power in range(25)]
"""Upper ends of the histograms' buckets: four a decade, from a millisecond to a quarter of an hour."""


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.loop = Histogram(
            "budc_loop_seconds",
            "Denoising loop of a batch. A policy computes the same steps for every prompt, so this hardly varies.",
            ["nfe", "batch"],
            buckets=SECONDS,
            registry=registry,
        )
        self.queue = Histogram(
            "budc_queue_seconds",
            "From a request's arrival to its batch.",
            ["nfe"],
            buckets=SECONDS,
            registry=registry,
        )
        self.waiting = Gauge("budc_waiting_requests", "Requests in the queue.", registry=registry)
        self.answers = Counter("budc_answers", "Answers by HTTP status.", ["status"], registry=registry)
        self.reloads = Counter("budc_reloads", "Changes of policies.", ["outcome"], registry=registry)
