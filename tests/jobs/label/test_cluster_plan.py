from __future__ import annotations

import pytest

from jobs.label.plan import make_plan
from jobs.runtime.errors import UsageError
from jobs.runtime.ray_session import Node


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("nodes", [1, 3])
def test_a_default_plan_fits_the_cluster(cpus, nodes):
    plan = make_plan([Node(cpus, 0)] * nodes, device="auto", actors=None, autoscaling=False)
    assert plan.device == "cpu"
    assert plan.actor_cpus <= cpus
    assert plan.max_actors * plan.actor_cpus + plan.decode_tasks * plan.decode_cpus <= cpus * nodes + 1e-9


@pytest.mark.parametrize("actors", [1, 2])
def test_two_cpus_hold_one_actor_or_two_and_the_decoding(actors):
    plan = make_plan([Node(2, 0)], device="cpu", actors=(actors, actors), autoscaling=False)
    assert plan.max_actors * plan.actor_cpus + plan.decode_tasks * plan.decode_cpus <= 2
    assert plan.threads == 2  # the same bits, whatever the number of actors


def test_gpus_get_an_actor_each_and_no_cpu():
    plan = make_plan([Node(8, 2), Node(16, 0)], device="auto", actors=None, autoscaling=False)
    assert (plan.device, plan.max_actors, plan.actor_gpus, plan.actor_cpus) == ("cuda", 2, 1.0, 0.0)


def test_what_cannot_be_scheduled_is_refused_at_once():
    with pytest.raises(UsageError, match="the cluster has 0 GPUs"):
        make_plan([Node(2, 0)], device="cuda", actors=None, autoscaling=False)
    with pytest.raises(UsageError, match="3 model actors cannot be scheduled: the cluster has 2 CPUs"):
        make_plan([Node(2, 0)], device="cpu", actors=(3, 3), autoscaling=False)
    with pytest.raises(UsageError, match="no CPU to schedule on"):
        make_plan([Node(0, 0)], device="auto", actors=None, autoscaling=False)


def test_a_cluster_that_can_grow_is_not_refused():
    assert make_plan([Node(0, 0)], device="cuda", actors=(1, 8), autoscaling=True).max_actors == 8


def test_a_busy_cluster_is_told():
    plan = make_plan([Node(2, 0)], device="cpu", actors=None, autoscaling=False)
    assert plan.waits_for(Node(2, 0)) is None
    assert "0 CPUs and 0 GPUs are free" in plan.waits_for(Node(0, 0))
