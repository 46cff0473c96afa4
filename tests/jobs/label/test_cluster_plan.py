"""How a cluster's CPUs and GPUs are shared between decoding and the model."""

from __future__ import annotations

import pytest

from jobs.label.plan import make_plan
from jobs.runtime.cluster import Node, NodeGroup
from jobs.runtime.errors import UsageError


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_default_plan_fits_the_cluster(cpus, nodes):
    plan = make_plan([Node(cpus, 0)] * nodes, device="auto", actors=None)
    assert plan.device == "cpu"
    assert plan.actor_cpus <= cpus
    assert plan.max_actors * plan.actor_cpus + plan.decode_tasks * plan.decode_cpus <= cpus * nodes + 1e-9


@pytest.mark.parametrize("actors", [1, 2])
def test_two_cpus_hold_one_actor_or_two_and_the_decoding(actors):
    plan = make_plan([Node(2, 0)], device="cpu", actors=(actors, actors))
    assert plan.max_actors * plan.actor_cpus + plan.decode_tasks * plan.decode_cpus <= 2
    assert plan.threads == 2  # the same bits, whatever the number of actors


@pytest.mark.parametrize(("cpus", "of_an_actor"), [(8, 1.0), (7, 0.0)])
def test_gpus_get_an_actor_each_with_a_cpu_where_its_node_has_four_for_each(cpus, of_an_actor):
    plan = make_plan([Node(cpus, 2), Node(16, 0)], device="auto", actors=None)
    assert (plan.device, plan.max_actors, plan.actor_gpus, plan.actor_cpus) == ("cuda", 2, 1.0, of_an_actor)
    assert plan.decode_tasks == cpus + 16 - 2 * of_an_actor


@pytest.mark.parametrize(
    ("nodes", "actors"), [([Node(2, 16)], None), ([Node(1, 8)], None), ([Node(2, 0), Node(1, 0)], (3, 3))]
)
def test_every_actor_has_a_decode_task_however_few_cpus_there_are(nodes, actors):
    plan = make_plan(nodes, device="auto", actors=actors)
    assert plan.decode_tasks >= plan.max_actors
    assert plan.bundles_per_actor >= 2
    cpus = sum(node.cpus for node in nodes)
    assert plan.max_actors * plan.actor_cpus + plan.decode_tasks * plan.decode_cpus <= cpus + 1e-9


def test_what_cannot_be_scheduled_is_refused_at_once():
    with pytest.raises(UsageError, match="the cluster has 0 GPUs"):
        make_plan([Node(2, 0)], device="cuda", actors=None)
    with pytest.raises(UsageError, match="3 model actors cannot be scheduled: the cluster has 2 CPUs"):
        make_plan([Node(2, 0)], device="cpu", actors=(3, 3))
    with pytest.raises(UsageError, match="no CPU to schedule on"):
        make_plan([Node(0, 0)], device="auto", actors=None)


#: the groups of cluster/rayjob-label.yaml, at the start of which the head alone stands
GROUPS = [NodeGroup(Node(16, 0), most=16), NodeGroup(Node(8, 1), most=8)]


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("standing", [[Node(0, 0)], [Node(0, 0), Node(8, 1)]])
def test_a_plan_is_made_for_all_that_the_autoscaler_may_bring(device, standing):
    plan = make_plan(standing, device=device, actors=None, groups=GROUPS)
    assert (plan.device, plan.min_actors, plan.max_actors, plan.grows) == ("cuda", 1, 8, True)
    assert plan.decode_tasks == 16 * 16 + 8 * (8 - 1)


def test_the_range_that_was_asked_for_ends_where_the_autoscaler_does():
    plan = make_plan([Node(0, 0)], device="cuda", actors=(2, 100), groups=GROUPS)
    assert (plan.min_actors, plan.max_actors) == (2, 8)
    with pytest.raises(UsageError, match="the cluster grows to 8 GPUs"):
        make_plan([Node(0, 0)], device="cuda", actors=(9, 9), groups=GROUPS)


def test_actors_that_a_fixed_cluster_cannot_hold_are_not_waited_for():
    assert make_plan([Node(8, 2)], device="cuda", actors=(1, 8)).max_actors == 2
    assert make_plan([Node(8, 0)], device="cpu", actors=(1, 8)).max_actors == 2
    assert make_plan([Node(2, 0)], device="cpu", actors=(2, 8)).max_actors == 2


def test_cpus_that_may_come_are_planned_for():
    plan = make_plan([Node(0, 0)], device="auto", actors=None, groups=[NodeGroup(Node(16, 0), most=4)])
    assert (plan.device, plan.min_actors, plan.max_actors, plan.decode_tasks) == ("cpu", 1, 16, 64)
    assert plan.max_actors * plan.actor_cpus + plan.decode_tasks * plan.decode_cpus <= 64


def test_a_cluster_without_a_cpu_grows_to_what_was_asked_for_where_no_maxima_can_be_read():
    plan = make_plan([Node(0, 0)], device="cuda", actors=(1, 8))
    assert (plan.min_actors, plan.max_actors, plan.decode_tasks, plan.grows) == (1, 8, 120, True)


def test_what_no_growth_brings_is_refused():
    with pytest.raises(UsageError, match="the cluster grows to 0 GPUs"):
        make_plan([Node(0, 0)], device="cuda", actors=None, groups=[NodeGroup(Node(16, 0), most=4)])


def test_a_busy_cluster_is_told():
    plan = make_plan([Node(2, 0)], device="cpu", actors=None)
    assert plan.waits_for(Node(2, 0)) is None
    assert "0 CPUs and 0 GPUs are free" in plan.waits_for(Node(0, 0))
    growing = make_plan([Node(0, 0)], device="cuda", actors=None, groups=GROUPS)
    assert "waiting for nodes from the autoscaler" in growing.waits_for(Node(0, 0))
