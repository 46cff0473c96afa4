"""Asks the connected cluster for its CPUs and GPUs: those it has now, and those its autoscaler may add."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import yaml
from ray._private import ray_constants, state, worker
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient
from ray.util.client import ray as client

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
    """The CPUs and GPUs of each node of the connected cluster that is alive."""
    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def free_resources() -> Node:
    """The CPUs and GPUs of the whole cluster that are free at the moment."""
    free = ray.available_resources()
    return Node(free.get("CPU", 0.0), free.get("GPU", 0.0))


@dataclass(frozen=True)
class NodeGroup:
    """A kind of node, of which an autoscaler may run `most` at once."""

    node: Node
    most: int


def node_groups() -> list[NodeGroup] | None:
    """The most nodes that the cluster's autoscaler may run, by kind; None where there is no autoscaler.

    An open-source Ray 2.60 does not report this. So it is read from the source that the autoscaler itself reads: the
    RayCluster resource on Kubernetes, else the file that `ray up` left on the head.
    """
    if not client.is_connected() and (reported := state.state.get_cluster_config()) is not None:
        return [
            NodeGroup(Node(group.resources.get("CPU", 0), group.resources.get("GPU", 0)), group.max_count)
            for group in reported.node_group_configs
            if group.max_count > 0
        ]
    config = _on_head(_autoscaling_config)
    return None if config is None else groups_of(config)


def nodes_of(groups: Sequence[NodeGroup]) -> list[Node]:
    """Every node that an autoscaler with these groups may run at once, one group after the other."""
    return [group.node for group in groups for _ in range(group.most)]


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
    if not client.is_connected():
        heads = [node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"]]
        if ray.get_runtime_context().get_node_id() in heads:
            return function()
    task = ray.remote(function).options(num_cpus=0, resources={"node:__internal_head__": 0.001})
    result: Result = ray.get(task.remote())
    return result


def _autoscaling_config() -> Mapping[str, Any] | None:
    """Read the autoscaler's configuration; runs on the head. None where the cluster has no autoscaler."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and "RAY_CLUSTER_NAME" in os.environ:
        return _kuberay_config(os.environ["RAY_CLUSTER_NAME"])
    path = Path(os.path.expanduser(BOOTSTRAP_CONFIG))
    if not path.exists():
        return None

    config: Mapping[str, Any] = yaml.safe_load(path.read_text())
    # the file may be left from an earlier cluster: the running autoscaler must use the file's name for the head
    return config if config["head_node_type"] in _head_types() else None


def _kuberay_config(name: str) -> Mapping[str, Any] | None:
    """The RayCluster as Ray's own autoscaler reads it. Where KubeRay autoscales, the head has the right to read it."""
    try:
        namespace = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
        resource = KubernetesHttpApiClient(namespace).get(f"rayclusters/{name}")
    except Exception as error:
        # a cluster without an autoscaler has no right to read the resource
        log.info("the RayCluster %s cannot be read, so the cluster counts as one of fixed size: %s", name, error)
        return None
    if not resource["spec"].get("enableInTreeAutoscaling"):
        return None
    config: Mapping[str, Any] = _derive_autoscaling_config_from_ray_cr(resource)
    return config


def _head_types() -> Sequence[str]:
    """The running autoscaler's names for the kinds of the present nodes."""
    text = worker.global_worker.gcs_client.internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS.encode(), None)
    if text is None:
        return []
    report = json.loads(text).get("autoscaler_report") or {}
    return [*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})]
