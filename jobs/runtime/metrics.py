"""Ray metrics of a running job, which every node exposes to Prometheus as `ray_yolact_…`.

The stages of a job call a `JobMetrics`. Outside a Ray process its methods do nothing, so that tests of the stages need
no Ray. `cluster/grafana/yolact.json` draws these metrics.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class MetricSpec:
    """One metric: its Ray kind ("Counter", "Gauge" or "Histogram"), description, tags and bucket bounds."""

    kind: str
    description: str
    tags: tuple[str, ...] = ()
    boundaries: list[float] = field(default_factory=list)


_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0]

#: every metric, by its name in Ray; each also carries the tags `job` and `run`
METRICS = {
    "yolact_images": MetricSpec("Counter", "Images labelled or trained on, by status: ok or a failure", ("status",)),
    "yolact_instances": MetricSpec("Counter", "Instances found"),
    "yolact_retries": MetricSpec("Counter", "Attempts repeated after a transient failure", ("reason",)),
    "yolact_stage_seconds": MetricSpec("Histogram", "Seconds one unit or batch spent in a stage", ("stage",), _SECONDS),
    "yolact_batch_images": MetricSpec("Counter", "Images in the batches that the model ran"),
    "yolact_batch_slots": MetricSpec("Counter", "Images that these batches had room for"),
    "yolact_gpu_memory_bytes": MetricSpec("Gauge", "GPU memory held by the model's process", ("device",)),
    "yolact_loss": MetricSpec("Gauge", "Training loss by part, weights applied", ("part",)),
}

_COMMON_TAGS = ("job", "run")


@functools.cache
def _ray_metric(name: str) -> Any:
    # the stages import this file, and they work without Ray; only a process of Ray gets here
    import ray.util.metrics

    spec = METRICS[name]
    arguments: dict[str, Any] = {"description": spec.description, "tag_keys": _COMMON_TAGS + spec.tags}
    if spec.boundaries:
        arguments["boundaries"] = spec.boundaries
    return getattr(ray.util.metrics, spec.kind)(name, **arguments)


def _inside_ray() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@dataclass(frozen=True)
class JobMetrics:
    """The metrics of one run. It pickles as two strings, so that a stage can carry it to its workers.

    `job` is the command ("label", "train", …) and `run` the run's id; both become tags.
    """

    job: str
    run: str

    def images(self, count: int, status: str = "ok") -> None:
        """Count images that became a row of this status, or that a training step used."""
        self._count("yolact_images", count, status=status)

    def instances(self, count: int) -> None:
        """Count instances found."""
        self._count("yolact_instances", count)

    def retry(self, reason: str, count: int = 1) -> None:
        """Count attempts that followed a transient failure; `reason` names it ("throttled", "time-out", …)."""
        self._count("yolact_retries", count, reason=reason)

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """Record how long one unit or batch spent in a stage."""
        self._record("observe", "yolact_stage_seconds", float(seconds), stage=stage)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record the wall time of a `with` block as the stage's seconds, also when it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds(stage, time.perf_counter() - start)

    def waits(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and record the seconds of waiting for each item as the stage's seconds."""
        start = time.perf_counter()
        for item in items:
            self.stage_seconds(stage, time.perf_counter() - start)
            yield item
            start = time.perf_counter()

    def batch_fill(self, images: int, batch_size: int) -> None:
        """Count the images of a model batch and its slots. The ratio of the two counters says how full batches are."""
        self._count("yolact_batch_images", images)
        self._count("yolact_batch_slots", batch_size)

    def gpu_memory(self) -> None:
        """Record the bytes that this process has reserved on each of its GPUs; without CUDA in use, record nothing."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
            return
        for device in range(torch.cuda.device_count()):
            self._record("set", "yolact_gpu_memory_bytes", torch.cuda.memory_reserved(device), device=str(device))

    def losses(self, losses: dict[str, float]) -> None:
        """Record each part of the training loss."""
        for part, value in losses.items():
            self._record("set", "yolact_loss", float(value), part=part)

    def _count(self, name: str, count: int, **tags: str) -> None:
        if count > 0:  # Ray refuses to increase a counter by 0
            self._record("inc", name, count, **tags)

    def _record(self, method: str, name: str, value: float, **tags: str) -> None:
        if _inside_ray():
            getattr(_ray_metric(name), method)(value, {"job": self.job, "run": self.run, **tags})
