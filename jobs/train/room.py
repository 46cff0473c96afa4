"""How much of a cluster a training run takes: the CPUs of each worker, its loader processes, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.runtime.cluster import Node, NodeGroup, nodes_of
from jobs.runtime.errors import UsageError
from jobs.train.options import TrainConfig

#: a GPU worker's usual number of loader processes is at most this
MOST_LOADERS = 16


@dataclass(frozen=True)
class NodeShare:
    """What one worker takes of its node."""

    cpus: int
    loader_processes: int


def share_of_node(config: TrainConfig, nodes: Sequence[Node], groups: Sequence[NodeGroup] | None) -> NodeShare:
    """The CPUs and loader processes of each worker.

    A GPU worker takes one CPU for itself and one for each loader process. By default it has as many loader processes as
    the CPUs of a node allow, shared among the node's GPUs. On CPUs the loader shares the cores of its worker, which
    takes one CPU of Ray, and one loader process is enough.

    Args:
        config: options of the run.
        nodes: the present nodes.
        groups: the kinds of node that an autoscaler may add; None without one.
    """
    if not config.use_gpu:
        return NodeShare(1, 1 if config.loader_processes is None else config.loader_processes)
    if config.loader_processes is not None:
        return NodeShare(1 + config.loader_processes, config.loader_processes)
    kinds = [node for node in (*nodes, *(group.node for group in groups or [])) if node.gpus >= 1]
    cpus = min((int(node.cpus // node.gpus) for node in kinds), default=1)
    return NodeShare(max(1, min(cpus, 1 + MOST_LOADERS)), max(1, min(cpus - 1, MOST_LOADERS)))


def check_room(
    nodes: Sequence[Node], groups: Sequence[NodeGroup] | None, workers: int, share: NodeShare, use_gpu: bool
) -> None:
    """Raises `UsageError` where the cluster can never hold so many workers: Ray would try to place them for ever.

    Args:
        nodes: the present nodes.
        groups: the most nodes of each kind that an autoscaler may run; None without one, or if that cannot be read.
        workers: the fewest of the run.
        share: what each worker takes.
        use_gpu: each worker takes a GPU as well.
    """
    if groups is None and not any(node.cpus for node in nodes):
        return  # a cluster without any CPU can only be one that grows
    coming = nodes_of(groups or [])

    def held_by(node: Node) -> int:
        by_cpus = node.cpus // share.cpus
        return int(min(by_cpus, node.gpus) if use_gpu else by_cpus)

    # the present nodes belong to the groups, so the larger of the two counts
    most = max(sum(map(held_by, of)) for of in (nodes, coming))
    if workers > most:
        taken = "a CPU" if share.cpus == 1 else f"{share.cpus} CPUs"
        raise UsageError(
            f"{workers} training workers cannot be scheduled: each takes {taken}{' and a GPU' * use_gpu}, and the "
            f"cluster {'has' if groups is None else 'grows to'} room for {most}; use fewer --num-workers"
            f"{' or --loader-processes' * (share.cpus > 1)}"
        )
