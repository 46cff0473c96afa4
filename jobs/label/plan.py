"""How the stages share a cluster, decided and checked before anything is scheduled.

On 2 CPUs the actors of one stage can starve another so that nothing moves, and a stage that asks for what no node has
waits for ever. So the logical CPUs of all stages are planned together, and a plan that does not fit is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.runtime.errors import UsageError
from jobs.runtime.ray_session import Node

#: share of a CPU-only cluster that decodes; the model needs ten times as long for an image
_DECODE_SHARE = 0.25
_DECODE_CPUS = 0.25
#: one image's convolutions stop gaining from more threads about here
_MAX_THREADS = 4


@dataclass(frozen=True)
class Plan:
    """Actors and decode tasks, and what each takes of a node. `threads` are the torch threads of one actor."""

    device: str
    min_actors: int
    max_actors: int
    actor_cpus: float
    actor_gpus: float
    threads: int
    decode_tasks: int
    decode_cpus: float

    def waits_for(self, free: Node) -> str | None:
        """What of a busy cluster the plan's start has to wait for, in words; None where there is enough."""
        cpus = self.min_actors * self.actor_cpus + self.decode_cpus
        gpus = self.min_actors * self.actor_gpus
        if free.cpus >= cpus and free.gpus >= gpus:
            return None
        return (
            f"the cluster is busy: {free.cpus:g} CPUs and {free.gpus:g} GPUs are free, {cpus:g} and {gpus:g} are needed"
        )

    def describe(self) -> str:
        actors = (
            f"{self.min_actors}" if self.min_actors == self.max_actors else f"{self.min_actors} to {self.max_actors}"
        )
        where = "GPU each" if self.actor_gpus else f"{self.threads} CPU thread{'s' * (self.threads > 1)} each"
        return f"{actors} model actor{'s' * (self.max_actors > 1)} ({where}), up to {self.decode_tasks} decode tasks"


def make_plan(nodes: Sequence[Node], *, device: str, actors: tuple[int, int] | None, autoscaling: bool) -> Plan:
    """Share the cluster between decoding and the model.

    `device` is "auto", "cpu" or "cuda". With `autoscaling` a node that is not there yet may come, so that a plan is
    not refused for want of nodes. Raises `UsageError` where the plan can never be scheduled.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if device == "cuda":
        return _gpu_plan(cpus, gpus, actors, autoscaling)
    return _cpu_plan(nodes, cpus, actors, autoscaling)


def _gpu_plan(cpus: float, gpus: float, actors: tuple[int, int] | None, autoscaling: bool) -> Plan:
    low, high = actors or (max(1, int(gpus)),) * 2
    if low > gpus and not autoscaling:
        have = f"{gpus:g} GPU{'s' * (gpus != 1)}"
        raise UsageError(
            f"{low} model actor{'s' * (low > 1)} on GPUs cannot be scheduled: the cluster has {have}; "
            "use --device cpu, or fewer --num-actors"
        )
    if cpus < 1 and not autoscaling:
        raise UsageError("the cluster has no CPU for decoding; add a CPU node, or start Ray with --num-cpus")
    decode_tasks = max(1, int(cpus)) if not autoscaling else max(16, int(cpus))
    return Plan("cuda", low, high, 0.0, 1.0, 1, decode_tasks, 1.0 if cpus >= 2 or autoscaling else 0.5)


def _cpu_plan(nodes: Sequence[Node], cpus: float, actors: tuple[int, int] | None, autoscaling: bool) -> Plan:
    usable = [node.cpus for node in nodes if node.cpus > 0]
    if not usable:
        if not autoscaling:
            raise UsageError("the cluster has no CPU to schedule on; add a node, or start Ray with --num-cpus")
        usable = [float(_MAX_THREADS)]
    if actors is None:
        count = sum(max(1, int(node) // _MAX_THREADS) for node in usable)
        low = high = count
    else:
        low, high = actors
    if low > max(cpus, 1) and not autoscaling:
        raise UsageError(
            f"{low} model actors cannot be scheduled: the cluster has {cpus:g} CPU{'s' * (cpus != 1)}; "
            "use fewer --num-actors"
        )
    # the number of threads changes the last bits of a convolution: it must not follow from the number of actors
    threads = max(1, min(_MAX_THREADS, int(min(usable))))
    # every actor must fit on the smallest node that is to hold its share
    per_actor = min(min(usable), sum(usable) / high)
    decode_tasks = max(1, int(sum(usable) * _DECODE_SHARE / _DECODE_CPUS))
    return Plan(
        "cpu",
        low,
        high,
        round((1 - _DECODE_SHARE) * min(per_actor, threads), 2),
        0.0,
        threads,
        decode_tasks,
        _DECODE_CPUS,
    )
