"""What the service counts, for Prometheus (https://prometheus.io/docs/instrumenting/).

Each service has a registry of its own. Nothing that is counted tells storage indexes or clients
apart.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNKNOWN = "unknown"  # the endpoint of requests that reached none
UNANSWERED = "none"  # the status of requests whose client went away
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Record:
    """One request, while it lasts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.endpoint = UNKNOWN
        self.status = UNANSWERED

    def named(self, endpoint: str) -> None:
        """Say which endpoint it is for."""
        self.endpoint = endpoint

    def answered(self, status: int) -> None:
        """Say what the answer is."""
        self.status = str(status)

    def moved(self, received: int, sent: int) -> None:
        """Say how many bytes of bodies came and went."""
        self._metrics.received.inc(received)
        self._metrics.sent.inc(sent)


class Metrics:
    """The numbers of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counted: dict[str, Any] = {"registry": self.registry, "namespace": "lafsfs_storage"}
        self.requests = Counter("requests", "Requests", ["endpoint", "status"], **counted)
        self.seconds = Histogram(
            "request_seconds", "Time to answer", ["endpoint"], buckets=_SECONDS, **counted
        )
        self.underway = Gauge("requests_underway", "Requests being answered", **counted)
        self.received = Counter("received_bytes", "Bytes of requests' bodies", **counted)
        self.sent = Counter("sent_bytes", "Bytes of answers' bodies", **counted)
        self.connections = Gauge("connections", "Open connections", **counted)
        self.uploads = Gauge("uploads_underway", "Immutable shares on their way", **counted)
        self.available = Gauge("available_bytes", "Room for shares", **counted)

    @contextmanager
    def request(self) -> Iterator[Record]:
        """Count a request and how long it takes."""
        record = Record(self)
        with self.underway.track_inprogress():
            start = time.perf_counter()
            try:
                yield record
            finally:
                taken = time.perf_counter() - start
                self.seconds.labels(record.endpoint).observe(taken)
                self.requests.labels(record.endpoint, record.status).inc()

    def app(self) -> Callable[..., Any]:
        """An ASGI application that tells them."""
        app: Callable[..., Any] = prometheus_client.make_asgi_app(self.registry)
        return app
