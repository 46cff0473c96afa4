"""What the connected cluster offers now, and what its autoscaler may add."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: where `ray up` puts the autoscaler's configuration, on the head
BOOTSTRAP_CONFIG = "~/ray_bootstrap_config.yaml"


@dataclass(frozen=True)
class Node:
    """The logical CPUs and GPUs of one node."""

    cpus: float
    gpus: float


def alive_nodes() -> list[Node]:
    """What each living node of the connected cluster offers."""
    import ray

    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def free_resources() -> Node:
    """What of the whole cluster nobody holds at the moment."""
    import ray

    free = ray.available_resources()
    return Node(free.get("CPU", 0.0), free.get("GPU", 0.0))


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind that an autoscaler may have running: `most` at most."""

    node: Node
    most: int


def node_groups() -> list[NodeGroup] | None:
    """What the cluster's autoscaler may bring at most, by kind of node; None where there is no autoscaler.

    An open-source Ray 2.60 does not report this to its control store, so it is read where the autoscaler itself has it
    from: the RayCluster resource on Kubernetes, else the file that `ray up` left on the head.
    """
    from ray._private import state
    from ray.util.client import ray as client

    if not client.is_connected() and (reported := state.state.get_cluster_config()) is not None:
        return [
            NodeGroup(Node(group.resources.get("CPU", 0), group.resources.get("GPU", 0)), group.max_count)
            for group in reported.node_group_configs
            if group.max_count > 0
        ]
    config = _on_head(_autoscaling_config)
    return None if config is None else groups_of(config)


def groups_of(config: Mapping[str, Any]) -> list[NodeGroup]:
    """The node groups of an autoscaling configuration, as `ray up` and Ray's KubeRay autoscaler read it."""
    limit = int(config.get("max_workers", 0))
    groups = []
    for name, kind in config["available_node_types"].items():
        most = min(int(kind.get("max_workers", limit)), limit)
        resources = kind.get("resources", {})
        if name != config.get("head_node_type") and most > 0:
            groups.append(NodeGroup(Node(float(resources.get("CPU", 0)), float(resources.get("GPU", 0))), most))
    return groups


def _on_head(function: Callable[[], Result]) -> Result:
    """Call `function` on the head of the cluster: here if this process runs there, else in a task."""
    import ray
    from ray.util.client import ray as client

    if not client.is_connected():
        heads = [node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"]]
        if ray.get_runtime_context().get_node_id() in heads:
            return function()
    task = ray.remote(function).options(num_cpus=0, resources={"node:__internal_head__": 0.001})
    result: Result = ray.get(task.remote())
    return result


def _autoscaling_config() -> Mapping[str, Any] | None:
    """On the head: the configuration that the autoscaler of this cluster runs by, or None without an autoscaler."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and "RAY_CLUSTER_NAME" in os.environ:
        return _kuberay_config(os.environ["RAY_CLUSTER_NAME"])
    path = Path(os.path.expanduser(BOOTSTRAP_CONFIG))
    if not path.exists():
        return None
    # Ray depends on it
    import yaml

    config: Mapping[str, Any] = yaml.safe_load(path.read_text())
    # the file may be of an earlier cluster: the autoscaler that runs must know the head by the file's own name
    return config if config["head_node_type"] in _head_types() else None


def _kuberay_config(name: str) -> Mapping[str, Any] | None:
    """The RayCluster as Ray's own autoscaler reads it. The head's service account may, where KubeRay autoscales."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    try:
        namespace = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
        resource = KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}")
    except Exception as error:
        # also where nobody may read it: a cluster without autoscaler has no such right
        log.info("the RayCluster %s cannot be read, so the cluster counts as one of fixed size: %s", name, error)
        return None
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return None
    config: Mapping[str, Any] = _derive_autoscaling_config_from_ray_cr(resource)
    return config


def _head_types() -> Sequence[str]:
    """The names that the running autoscaler has for the kinds of the nodes that stand."""
    from ray._private import ray_constants, worker

    text = worker.global_worker.gcs_client.internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS.encode(), None)
    if text is None:
        return []
    report = json.loads(text).get("autoscaler_report") or {}
    return [*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})]
