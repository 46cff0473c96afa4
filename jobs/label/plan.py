"""How the stages share a cluster, decided and checked before anything is scheduled.

On 2 CPUs the actors of one stage can take all CPUs, so that the other stage never runs. A stage that asks for more than
any node has waits for ever. So the logical CPUs of all stages are planned together, and a plan that does not fit is an
error. If the cluster has an autoscaler, the plan is made for the largest cluster that the autoscaler may start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.runtime.cluster import Node, NodeGroup, nodes_of
from jobs.runtime.errors import UsageError

#: share of a CPU-only cluster that decodes; the model needs ten times as long for an image
_DECODE_SHARE = 0.25
_DECODE_CPUS = 0.25
#: Ray counts CPUs in ten-thousandths
_LEAST_CPUS = 0.0001
#: from this many CPUs for each GPU of a node on, a model actor has one of them for its Python threads
_CPUS_PER_GPU = 4
#: one image's convolutions stop gaining from more threads about here
_MAX_THREADS = 4
#: CPUs of a node that does not exist yet, if nothing says how large it will be
_ASSUMED_CPUS = 16.0


@dataclass(frozen=True)
class Plan:
    """Actors and decode tasks, and the CPUs and GPUs of each. `threads` are the torch threads of one actor.

    With `grows`, an autoscaler may add nodes: the run then starts with `min_actors` and waits for nodes without limit.
    """

    device: str
    min_actors: int
    max_actors: int
    actor_cpus: float
    actor_gpus: float
    threads: int
    decode_tasks: int
    decode_cpus: float
    grows: bool = False

    @property
    def bundles_per_actor(self) -> int:
        """How many bundles an actor works on: one for each decode task of its own, and one that waits for its turn."""
        return self.decode_tasks_per_actor + 1

    @property
    def decode_tasks_per_actor(self) -> int:
        """How many decode tasks one actor has at the same time, at most."""
        return -(-self.decode_tasks // self.max_actors)

    def waits_for(self, free: Node) -> str | None:
        """A sentence on what the start has to wait for in a cluster with `free` resources; None if it need not wait."""
        cpus = self.min_actors * self.actor_cpus + self.decode_cpus
        gpus = self.min_actors * self.actor_gpus
        if free.cpus >= cpus and free.gpus >= gpus:
            return None
        have = f"{free.cpus:g} CPUs and {free.gpus:g} GPUs are free, {cpus:g} and {gpus:g} are needed"
        if self.grows:
            return f"{have}; waiting for nodes from the autoscaler"
        return f"the cluster is busy: {have}; waiting until other jobs release them"

    def describe(self) -> str:
        """The plan in one line for the log."""
        actors = (
            f"{self.min_actors}" if self.min_actors == self.max_actors else f"{self.min_actors} to {self.max_actors}"
        )
        where = "GPU each" if self.actor_gpus else f"{self.threads} CPU thread{'s' * (self.threads > 1)} each"
        return f"{actors} model actor{'s' * (self.max_actors > 1)} ({where}), up to {self.decode_tasks} decode tasks"


def make_plan(
    nodes: Sequence[Node],
    *,
    device: str,
    actors: tuple[int, int] | None,
    groups: Sequence[NodeGroup] | None = None,
) -> Plan:
    """Share the cluster between decoding and the model.

    Args:
        nodes: the present nodes.
        device: "auto", "cpu" or "cuda".
        actors: fewest and most model actors; None fits them to the cluster.
        groups: the most nodes of each kind that an autoscaler may run; None without an autoscaler, or if that cannot
            be read. If the cluster has no CPU yet, `device` and `actors` say what it will have.

    Raises:
        UsageError: if the plan can never be scheduled.
    """
    if groups is None and actors is not None and device != "auto" and not any(node.cpus for node in nodes):
        # a cluster without any CPU can only be one that grows, and the user says to what
        groups = [NodeGroup(Node(_ASSUMED_CPUS, 1.0 if device == "cuda" else 0.0), actors[1])]
    # the present nodes belong to the groups, so the larger of the two counts
    most = max([list(nodes), nodes_of(groups or [])], key=_size)
    device = ("cuda" if sum(node.gpus for node in most) else "cpu") if device == "auto" else device
    if device == "cuda":
        return _gpu_plan(most, actors, grows=groups is not None)
    return _cpu_plan(most, actors, grows=groups is not None)


def _size(nodes: Sequence[Node]) -> tuple[float, float]:
    return sum(node.gpus for node in nodes), sum(node.cpus for node in nodes)


def _gpu_plan(nodes: Sequence[Node], actors: tuple[int, int] | None, *, grows: bool) -> Plan:
    gpus, cpus = _size(nodes)
    low, high = actors or (1 if grows else max(1, int(gpus)), max(1, int(gpus)))
    if low > gpus:
        raise UsageError(
            f"{low} model actor{'s' * (low > 1)} on GPUs cannot be scheduled: the cluster "
            f"{'grows to' if grows else 'has'} {gpus:g} GPU{'s' * (gpus != 1)}; "
            "use --device cpu, or fewer --num-actors"
        )
    if cpus < 1:
        raise UsageError("the cluster has no CPU for decoding; add a CPU node, or start Ray with --num-cpus")
    actors_most = min(high, int(gpus))
    plenty = all(node.cpus >= _CPUS_PER_GPU * node.gpus for node in nodes if node.gpus)
    actor_cpus = 1.0 if plenty else 0.0
    decode_tasks, decode_cpus = _share(cpus - actor_cpus * actors_most, 1.0 if cpus >= 2 else 0.5, actors_most)
    return Plan(
        device="cuda",
        min_actors=low,
        max_actors=actors_most,
        actor_cpus=actor_cpus,
        actor_gpus=1.0,
        threads=1,
        decode_tasks=decode_tasks,
        decode_cpus=decode_cpus,
        grows=grows,
    )


def _share(cpus: float, each: float, actors: int) -> tuple[int, float]:
    """Decode tasks, and the CPUs of each: `each` where `cpus` give every actor a task, else less."""
    tasks = max(1, int(cpus / each))
    if tasks >= actors:
        return tasks, each
    # a task works for one actor at a time, so an actor without a task would stand still
    return actors, max(_LEAST_CPUS, math.floor(cpus / actors / _LEAST_CPUS) * _LEAST_CPUS)


def _cpu_plan(nodes: Sequence[Node], actors: tuple[int, int] | None, *, grows: bool) -> Plan:
    usable = [node.cpus for node in nodes if node.cpus > 0]
    if not usable:
        raise UsageError("the cluster has no CPU to schedule on; add a node, or start Ray with --num-cpus")
    cpus = sum(usable)
    count = sum(max(1, int(node) // _MAX_THREADS) for node in usable)
    low, high = actors or (1 if grows else count, count)
    if low > max(cpus, 1):
        raise UsageError(
            f"{low} model actors cannot be scheduled: the cluster {'grows to' if grows else 'has'} {cpus:g} "
            f"CPU{'s' * (cpus != 1)}; use fewer --num-actors"
        )
    if not grows:
        # a range on a cluster of fixed size: as many as fit well, within the range
        high = min(high, max(low, count))
    # the number of threads changes the last bits of a convolution: it must not follow from the number of actors
    threads = max(1, min(_MAX_THREADS, int(min(usable))))
    # every actor must fit on the smallest node
    per_actor = min(min(usable), cpus / high)
    decode_tasks, decode_cpus = _share(cpus * _DECODE_SHARE, _DECODE_CPUS, high)
    return Plan(
        device="cpu",
        min_actors=low,
        max_actors=high,
        actor_cpus=round((1 - _DECODE_SHARE) * min(per_actor, threads), 2),
        actor_gpus=0.0,
        threads=threads,
        decode_tasks=decode_tasks,
        decode_cpus=decode_cpus,
        grows=grows,
    )
