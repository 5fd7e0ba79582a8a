"""What the endpoint counts, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = tuple(
    milliseconds / 1000
    for milliseconds in (1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 200, 500, 1000, 2000, 5000)
)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one application; each has its own registry, so that two can live together."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "recsys_requests_total",
            "Requests answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "recsys_request_seconds",
            "Time from the first byte of a request to its answer.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "recsys_stage_seconds",
            "Time of a stage: features (of a user), wait (in the queue), and per batch resolve, encode, "
            "search, answer.",
            ["stage"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "recsys_batch_requests",
            "Requests that shared one model call.",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "recsys_fallbacks_total",
            "Lists that are the default of an empty history.",
            ["reason"],
            registry=self.registry,
        )
        self.unknown = Counter(
            "recsys_unknown_ids_total",
            "Item ids in requests that the catalogue does not hold.",
            ["field"],
            registry=self.registry,
        )
        self.texts = self._counter(
            "recsys_history_texts_total",
            "Items of histories given by their texts: read, unreadable.",
            "result",
        )
        self.unread = self._counter(
            "recsys_unread_previous_lists_total",
            "Lists before a history that were sent, but not read by what answered.",
        )
        self.refused = Counter(
            "recsys_refused_total",
            "Requests refused because the queue was full.",
            registry=self.registry,
        )
        self.sources = self._counter(
            "recsys_lists_total", "Lists by what made them: the model or a rung below it.", "source"
        )
        self.model_failures = self._counter(
            "recsys_model_failures_total", "Requests for which the model failed."
        )
        self.late = self._counter("recsys_late_total", "Requests given up at their deadline.")
        self.denied = self._counter("recsys_denied_total", "Requests without a valid API key.")
        self.loads = self._counter(
            "recsys_model_loads_total", "Other models: loaded, refused, rolled_back.", "result"
        )
        self.events = self._counter(
            "recsys_events_total", "Live events: accepted, repeated.", "result"
        )
        self.feature_misses = self._counter(
            "recsys_feature_misses_total",
            "Histories that did not come from the feature store: timeout, error, paused, missing.",
            "reason",
        )
        self.push_failures = self._counter(
            "recsys_push_failures_total", "Portions of live events the feature store did not take."
        )
        self.unpushed = self._gauge(
            "recsys_unpushed_events", "Live events that the feature store does not have yet."
        )
        self.unlogged = self._gauge(
            "recsys_unlogged_answers", "Answers the log had no room for since the start."
        )
        self.unplaced = self._gauge(
            "recsys_unplaced_items", "New items that the current model has no place for."
        )
        self._model = self._model_gauge()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(name, what, labels, registry=self.registry)

    def _model_gauge(self) -> Gauge:
        return self._gauge("recsys_model_info", "1 for the model that answers.", "name", "version")

    def name_model(self, name: str, version: str) -> None:
        """Say which model answers from now on, and no other.

        The gauge is made anew: its labels cannot be cleared once Feast, which sets the client library's
        variable for several processes, has been imported.
        """
        self.registry.unregister(self._model)
        self._model = self._model_gauge()
        self._model.labels(name, version).set(1)

    def observe_stage(self, stage: str, seconds: float) -> None:
        """Record the seconds of a stage."""
        self.stages.labels(stage).observe(seconds)

    def render(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)
