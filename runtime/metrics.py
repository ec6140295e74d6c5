"""What a pipeline tells Prometheus: read from its own counters when asked, so that a tick pays for nothing but counting.

Words, pictures and sound are in none of it; of what was understood only how often each label of the bundle was predicted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from clcr_edge.errors import MissingPartError
from clcr_edge.packets import Modality, Prediction
from clcr_edge.runtime.readiness import Readiness, readiness
from clcr_edge.runtime.source_state import SourceState
from clcr_edge.runtime.stages import BOUNDS_S, LatencyHistogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

    from clcr_edge.runtime.pipeline import Pipeline

_P = "clcr_edge"


def prometheus() -> Any:
    """The prometheus_client module. Raises `MissingPartError` if it is not installed."""
    try:
        import prometheus_client
        import prometheus_client.core
    except ImportError:
        raise MissingPartError(
            "metrics: the prometheus-client package is not installed; pip install 'clcr-edge[metrics]', or leave out --metrics"
        ) from None
    return prometheus_client


class Metrics:
    """A Prometheus collector over one pipeline. Made before the pipeline, so that a server can say `starting`.

    about: labels of `clcr_edge_info` (bundle, engine, precision). `attach` once there is a pipeline, `saw` each prediction.
    """

    def __init__(self, about: dict[str, str]) -> None:
        self._about = about
        self._begun_s = time.monotonic()
        self._pipeline: Pipeline | None = None
        self._newest: tuple[Prediction, float] | None = None  # and when it came, one reference so that readers see a pair
        self._labels: dict[str, int] = {}
        self._predictions = 0

    def attach(self, pipeline: Pipeline) -> None:
        """The pipeline to report on."""
        self._labels = dict.fromkeys(pipeline.session.config.classes, 0)
        self._pipeline = pipeline

    def saw(self, prediction: Prediction) -> None:
        """Count a prediction."""
        self._predictions += 1
        self._labels[prediction.label] = self._labels.get(prediction.label, 0) + 1
        self._newest = (prediction, time.monotonic())

    @property
    def readiness(self) -> Readiness:
        """How the pipeline is doing now."""
        pipeline, newest = self._pipeline, self._newest
        if pipeline is None or newest is None:
            return Readiness("starting")
        return readiness(pipeline.states, time.monotonic() - newest[1])

    def registry(self) -> CollectorRegistry:
        """A registry of this collector and of the process's own memory, CPU time and files (Linux)."""
        client = prometheus()
        registry: CollectorRegistry = client.CollectorRegistry()
        registry.register(self)
        client.ProcessCollector(registry=registry)
        return registry

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect to know what there will be."""
        return []

    # -- what there is to read --------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for every scrape, from the server's thread."""
        core = prometheus().core
        info = core.InfoMetricFamily(_P, "What runs.", value=self._about)
        yield info
        yield core.GaugeMetricFamily(
            f"{_P}_uptime_seconds", "Time since this process began to serve metrics.", value=time.monotonic() - self._begun_s
        )
        state = core.GaugeMetricFamily(f"{_P}_health", "1 for the state that /healthz tells.", labels=["status"])
        now = self.readiness.status
        for status in ("starting", "ready", "degraded", "stalled"):
            state.add_metric([status], float(status == now))
        yield state
        yield core.CounterMetricFamily(f"{_P}_predictions", "Predictions made.", value=self._predictions)
        labels = core.CounterMetricFamily(f"{_P}_labels", "Predictions by their label.", labels=["label"])
        for label, count in self._labels.items():
            labels.add_metric([label], count)
        yield labels
        if self._pipeline is not None:
            yield from self._stages(core, self._pipeline)
            yield from self._media(core, self._pipeline)
            if self._newest is not None:
                yield from self._newest_prediction(core, self._pipeline, *self._newest)

    def _stages(self, core: Any, pipeline: Pipeline) -> Iterator[Metric]:
        times = pipeline.session.times
        stages = core.HistogramMetricFamily(
            f"{_P}_stage_seconds", "Wall time of each stage of a tick.", labels=["stage", "source"]
        )
        for source, found in times.capture.items():
            _fill(stages, ["capture", source], found)
        for source, found in times.decode.items():
            _fill(stages, ["decode", source], found)
        for name, found in (("features", times.features), ("engine", times.engine), ("sink", times.sink)):
            _fill(stages, [name, ""], found)
        yield stages
        age = core.HistogramMetricFamily(
            f"{_P}_capture_to_prediction_seconds",
            "Age of the newest frame, sample or new word when its prediction is there.",
            labels=["modality"],
        )
        for modality, found in times.age.items():
            _fill(age, [modality], found)
        yield age
        yield core.CounterMetricFamily(
            f"{_P}_ticks_late", "Predictions that came more than a tick after their tick's end.", value=pipeline.late
        )
        skipped = pipeline.summary.ticks_skipped
        yield core.CounterMetricFamily(f"{_P}_ticks_skipped", "Ticks that made no prediction, under load.", value=skipped)
        about = "Rung of load shedding: 0 is the whole network, the last leaves out most."
        yield core.GaugeMetricFamily(f"{_P}_rung", about, value=pipeline.session.rung)

    def _media(self, core: Any, pipeline: Pipeline) -> Iterator[Metric]:
        dropped: dict[str, Any] = {}
        for (what, why), count in pipeline.drops.items():
            if what not in dropped:
                dropped[what] = core.CounterMetricFamily(
                    f"{_P}_{what}_dropped", f"{what.replace('_', ' ').capitalize()} that no tick used.", labels=["reason"]
                )
            dropped[what].add_metric([why], count)
        yield from dropped.values()
        stats = pipeline.stats
        yield core.CounterMetricFamily(f"{_P}_frames_used", "Camera frames that a tick used.", value=stats.frames_used)
        yield core.CounterMetricFamily(f"{_P}_audio_samples_used", "Samples that a tick used.", value=stats.samples_used)
        about = "Samples that ticks went without although audio had begun."
        yield core.CounterMetricFamily(f"{_P}_audio_samples_missing", about, value=stats.samples_missing)
        yield core.CounterMetricFamily(f"{_P}_words_used", "Words that a tick used; never which.", value=stats.words_used)
        states = core.GaugeMetricFamily(f"{_P}_source_state", "1 for the state a source is in.", labels=["source", "state"])
        for source, state in pipeline.states.items():
            for each in SourceState:
                states.add_metric([source, each.value], float(each is state))
        yield states
        use = pipeline.speech_use
        if use is not None:
            about = "Resident memory of the recogniser's own process."
            yield core.GaugeMetricFamily(f"{_P}_speech_process_resident_memory_bytes", about, value=use.resident_bytes)
            about = "CPU time of the recogniser's own process; a new one begins at 0."
            yield core.CounterMetricFamily(f"{_P}_speech_process_cpu_seconds", about, value=use.cpu_s)

    def _newest_prediction(self, core: Any, pipeline: Pipeline, prediction: Prediction, came_s: float) -> Iterator[Metric]:
        since_s = time.monotonic() - came_s
        yield core.GaugeMetricFamily(f"{_P}_prediction_age_seconds", "Time since the newest prediction came.", value=since_s)
        stale = core.GaugeMetricFamily(
            f"{_P}_modality_age_seconds", "Staleness: age of the newest media used, counted on to now.", labels=["modality"]
        )
        for modality, age_s in prediction.age_s.items():
            if age_s is not None:
                stale.add_metric([modality], age_s + since_s)
        yield stale
        about = "Share of valid tokens in the exchange (IntraCED's budget)."
        budget = core.GaugeMetricFamily(f"{_P}_participation_ratio", about, labels=["level", "modality"])
        for level, shares in prediction.participation.items():
            for m in Modality:
                budget.add_metric([level, m.key], shares[m.key])
        yield budget


def _fill(family: Any, labels: list[str], found: LatencyHistogram) -> None:
    counts, total_s = list(found.counts), found.total_s
    buckets, below = [], 0
    for edge, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
        below += count
        buckets.append((edge, below))
    family.add_metric(labels, buckets, total_s)
