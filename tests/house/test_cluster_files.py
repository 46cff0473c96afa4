"""What stands in cluster/ is what KubeRay, Ray's autoscaler, Prometheus and the command line take."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs.__main__ import COMMANDS, parse_config
from jobs.runtime.metrics import METRICS
from jobs.runtime.options import parse_count_range
from jobs.runtime.ray_session import WORKER_ENVIRONMENT

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
#: KubeRay's schemas of its resources, see the README there
SCHEMAS = Path(__file__).resolve().parent / "kuberay"
MANIFESTS = sorted(path.name for path in CLUSTER.glob("ray*.yaml"))


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def custom_resource(name: str) -> dict:
    [found] = [d for d in documents(name) if d["apiVersion"] == "ray.io/v1"]
    return found


def cluster_spec(name: str) -> dict:
    spec = custom_resource(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def closed(schema: object) -> object:
    """The same schema, refusing fields that it does not know, as the API server prunes them."""
    if isinstance(schema, list):
        return [closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result = {key: value for key, value in result.items() if key not in ("type", "anyOf")}
        result["type"] = ["integer", "string"]
    return result


def validator(kind: str) -> jsonschema.Draft202012Validator:
    document = json.loads((SCHEMAS / f"{kind}.v1.json").read_text())
    schema = closed(document["schema"])
    # apiVersion, kind and metadata are the API server's own; the resource's schema leaves metadata open
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def test_there_are_manifests():
    assert MANIFESTS == ["raycluster.yaml", "rayjob-label.yaml", "rayjob-train.yaml"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_kuberay_takes_the_manifest(name):
    resource = custom_resource(name)
    errors = [f"{e.json_path}: {e.message}" for e in validator(resource["kind"]).iter_errors(resource)]
    assert errors == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "backoffLimits"), 3),
        (("spec", "backoffLimit"), "many"),
        (("spec", "rayClusterSpec", "rayversion"), "2"),
    ],
)
def test_the_check_would_notice(path, value):
    resource = copy.deepcopy(custom_resource("rayjob-label.yaml"))
    at = resource
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert list(validator("RayJob").iter_errors(resource))


@pytest.mark.parametrize("name", MANIFESTS)
def test_rules_that_the_operator_checks_beyond_the_schema(name):
    """KubeRay refuses these combinations when it reconciles, after the API server took them."""
    resource, spec = custom_resource(name), cluster_spec(name)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", resource["metadata"]["name"])
    assert len(resource["metadata"]["name"]) <= 47
    if resource["spec"].get("deletionStrategy", {}).get("deletionRules"):
        assert not resource["spec"].get("shutdownAfterJobFinishes")
        rules = resource["spec"]["deletionStrategy"]["deletionRules"]
        waits: dict[tuple[str, str], dict[str, int]] = {}
        for rule in rules:
            [status] = [(key, value) for key, value in rule["condition"].items() if key != "ttlSeconds"]
            waits.setdefault(status, {})[rule["policy"]] = rule["condition"]["ttlSeconds"]
        # past activeDeadlineSeconds jobStatus stays RUNNING: a rule on its FAILED would never match
        assert set(waits) == {("jobStatus", "SUCCEEDED"), ("jobDeploymentStatus", "Failed")}
        for wait in waits.values():
            assert wait["DeleteCluster"] <= wait["DeleteSelf"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"
    assert spec["authOptions"]["mode"] == "token"
    assert spec["rayVersion"] == "2.60.0"


@pytest.mark.parametrize("name", MANIFESTS)
def test_rays_autoscaler_reads_the_groups_as_meant(name):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    resource = {"metadata": {"name": "yolact", "namespace": "default"}, "spec": cluster_spec(name)}
    types = _derive_autoscaling_config_from_ray_cr(resource)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    gpu = types["gpu"]
    assert (gpu["min_workers"], gpu["resources"]["GPU"]) == (0, 1)
    assert gpu["max_workers"] >= 1
    if name != "rayjob-train.yaml":
        assert types["decode"]["min_workers"] == 0
        assert "GPU" not in types["decode"]["resources"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_no_keys_in_manifests_and_the_head_is_not_on_spot(name):
    text = (CLUSTER / name).read_text()
    assert not re.search(r"(?i)(AKIA|aws_secret_access_key|password:\s*\S+$)", text)
    head = cluster_spec(name)["headGroupSpec"]["template"]["spec"]
    assert head["nodeSelector"] == {"karpenter.sh/capacity-type": "on-demand"}
    groups = [cluster_spec(name)["headGroupSpec"], *cluster_spec(name)["workerGroupSpecs"]]
    images = {c["image"] for group in groups for c in group["template"]["spec"]["containers"]}
    assert len(images) == 1
    assert not images.pop().endswith(":latest")


@pytest.mark.parametrize("name", MANIFESTS)
def test_workers_have_no_rights_of_the_head(name):
    """KubeRay lets the account of the head create and delete pods; workers decode images that strangers made."""
    accounts = {d["metadata"]["name"] for d in documents(name) if d["kind"] == "ServiceAccount"}
    head = cluster_spec(name)["headGroupSpec"]["template"]["spec"]
    workers = [group["template"]["spec"] for group in cluster_spec(name)["workerGroupSpecs"]]
    assert head["serviceAccountName"] == "yolact-head"
    assert {worker["serviceAccountName"] for worker in workers} == {"yolact-worker"}
    assert accounts == {"yolact-head", "yolact-worker"}
    assert all(worker["automountServiceAccountToken"] is False for worker in workers)


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_ask_for_the_disk_that_spilling_takes_and_the_head_stays(name):
    groups = [cluster_spec(name)["headGroupSpec"], *cluster_spec(name)["workerGroupSpecs"]]
    for group in groups:
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"]["ephemeral-storage"] in ("50Gi", "100Gi")
        assert {"name": "ray-logs", "mountPath": "/tmp/ray"} in container["volumeMounts"]
    assert groups[0]["template"]["metadata"]["annotations"] == {"karpenter.sh/do-not-disrupt": "true"}


def test_the_label_job_is_planned_for_what_its_groups_may_bring():
    """`jobs.runtime.cluster` reads the RayCluster as Ray's autoscaler does; the head alone stands at the start."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    from jobs.label.plan import make_plan
    from jobs.runtime.cluster import Node, NodeGroup, groups_of

    resource = {"metadata": {"name": "yolact", "namespace": "default"}, "spec": cluster_spec("rayjob-label.yaml")}
    groups = groups_of(_derive_autoscaling_config_from_ray_cr(resource))
    assert groups == [NodeGroup(Node(16, 0), 16), NodeGroup(Node(8, 1), 8)]
    _, command, *arguments = shlex.split(custom_resource("rayjob-label.yaml")["spec"]["entrypoint"])
    config = parse_config(command, arguments)
    asked = parse_count_range("--num-actors", config.num_actors)
    assert make_plan([Node(0, 0)], device=config.device, actors=asked, groups=groups).max_actors == asked[1]


@pytest.mark.parametrize("name", ["rayjob-label.yaml", "rayjob-train.yaml"])
def test_entrypoints_are_commands_that_parse(name):
    program, command, *arguments = shlex.split(custom_resource(name)["spec"]["entrypoint"])
    assert program == "yolact"
    assert command in COMMANDS
    parse_config(command, arguments)


def test_ray_up_takes_the_aws_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((CLUSTER / "aws.yaml").read_text()))
    validate_config(config)
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    for name in ("decode", "gpu"):
        assert types[name]["min_workers"] == 0
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert len({kind["node_config"]["ImageId"] for kind in types.values()}) == 1


def test_the_head_on_ec2_has_a_profile_of_its_own_and_its_rights_are_named():
    """Ray adds its own EC2 rights only to a head without an instance profile."""
    text = (CLUSTER / "aws.yaml").read_text()
    types = yaml.safe_load(text)["available_node_types"]
    profiles = {name: kind["node_config"]["IamInstanceProfile"]["Name"] for name, kind in types.items()}
    assert profiles == {"head": "yolact-head", "decode": "yolact-lake", "gpu": "yolact-lake"}
    for right in ("ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:DescribeInstances"):
        assert right in text
    assert "iam:PassRole on the role of yolact-lake" in text
    assert "aws ssm get-parameter" in text  # how to choose ImageId


def test_the_image_has_the_versions_of_the_project():
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    project = (CLUSTER.parent / "pyproject.toml").read_text()
    for package in ("ray", "torch", "torchvision"):
        [version] = set(re.findall(rf'"{package}(?:\[[^]]*\])?==([\d.]+)"', project))
        assert version in dockerfile, f"{package}=={version}"
    for copied in re.findall(r"^COPY --chown=\S+ (.+) \S+$", dockerfile, re.M):
        assert all((CLUSTER.parent / name).exists() for name in copied.split())
    for name, value in WORKER_ENVIRONMENT.items():
        assert f"{name}={value}" in dockerfile


def test_both_variants_of_the_image_have_what_their_jobs_need():
    """No Docker here: this follows the build arguments through the text."""
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    before, after = re.split(r"^FROM \$\{RAY_IMAGE\}$", dockerfile, flags=re.M)
    assert "ARG VARIANT=gpu" in before
    assert "ARG RAY_IMAGE=rayproject/ray:2.60.0-py311-${VARIANT}" in before
    # an ARG before FROM is empty after it, unless it is declared again
    assert re.search(r"^ARG VARIANT$", after, re.M)
    assert 'if [ "${VARIANT}" = cpu ]; then index="--index-url ${CPU_TORCH_INDEX}"' in after
    assert "${index} --no-deps torch==" in after
    assert "(torch.version.cuda is None) == ('${VARIANT}' == 'cpu')" in after
    [extras] = re.findall(r'"\.\[([a-z,]+)\]"', after)
    assert set(extras.split(",")) == {"openvino", "gcs"}
    project = (CLUSTER.parent / "pyproject.toml").read_text()
    constraints = (CLUSTER.parent / "constraints.txt").read_text()
    for package in ("openvino", "nncf", "gcsfs"):
        assert f'"{package}>=' in project
        assert re.search(rf"^{package}==", constraints, re.M)


def test_the_version_of_kuberay_that_the_manifests_need_is_said():
    for name in ("rayjob-label.yaml", "rayjob-train.yaml"):
        assert "KubeRay 1.6 or newer" in (CLUSTER / name).read_text()
    assert "KubeRay 1.6 or newer" in (CLUSTER.parent / "docs" / "cluster.md").read_text()


def dashboard() -> dict:
    return json.loads((CLUSTER / "grafana" / "yolact.json").read_text())


def test_the_dashboard_draws_every_metric_and_no_other():
    text = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    drawn = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in re.findall(r"ray_(yolact_\w+)", text)}
    assert drawn == set(METRICS)


def test_dashboard_panels_stand_apart_and_ask_well():
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed (tests/readers.txt)")
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel["targets"]:
            parser.parse(target["expr"].replace("$run", ".*"))
