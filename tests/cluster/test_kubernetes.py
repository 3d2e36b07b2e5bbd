"""The manifests: what the API server would drop or refuse, what they must say, and that a typo anywhere is found."""

import copy
import re
from typing import Any

import manifests
import preemption
import pytest

PATHS = {path.stem: path for path in manifests.KUBERNETES}


def first(stem: str) -> dict[str, Any]:
    return manifests.load(PATHS[stem])[0]


def every() -> list[dict[str, Any]]:
    return [document for path in manifests.KUBERNETES for document in manifests.load(path)]


@pytest.mark.parametrize("stem", sorted(PATHS))
def test_accepted(stem):
    documents = manifests.load(PATHS[stem])
    assert documents
    for document in documents:
        manifests.check_kubernetes(document)


def test_all_that_is_needed_is_there():
    kinds = {(document["kind"], document["metadata"]["name"]) for document in every()}
    assert {("RayCluster", "wildray"), ("RayJob", "wildray-savanna")} <= kinds
    assert {("PersistentVolumeClaim", "wildray-shared"), ("Service", "wildray-redis")} <= kinds
    assert len(kinds) == len(every()), "two of one kind and name: the later would replace the former"


def places(node: Any, path: tuple[Any, ...] = ()) -> Any:
    """Every named place below a node, but for names that are the user's own: labels, requests and the like."""
    own = {"labels", "matchLabels", "requests", "limits", "rayStartParams", "annotations"}
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in own and not (key == "selector" and "matchLabels" not in value):  # a Service's: labels
                yield from places(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from places(value, (*path, number))


def spoil(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    spoilt = copy.deepcopy(document)
    place: Any = spoilt
    for part in path[:-1]:
        place = place[part]
    place[path[-1] + "x"] = place.pop(path[-1])
    return spoilt


@pytest.mark.parametrize("stem", sorted(PATHS))
def test_every_misspelt_name_is_found(stem):
    """Each name in each manifest in turn: the API server would drop it without a word."""
    for document in manifests.load(PATHS[stem]):
        named = list(places(document))
        if len(named) > 100:  # the large ones: each path once, in whichever group it first comes
            named = list({tuple(part for part in path if isinstance(part, str)): path for path in named}.values())
        assert max(len(path) for path in named) >= 3
        for path in named:
            with pytest.raises(manifests.Invalid):
                manifests.check_kubernetes(spoil(document, path))


WRONG = [
    ("raycluster", "apiVersion", "ray.io/v1alpha1"),
    ("raycluster", "kind", "RayClusters"),
    ("raycluster", "spec/authOptions/mode", "tokens"),
    ("raycluster", "spec/authOptions", "token"),
    ("raycluster", "spec/autoscalerOptions/version", "v3"),
    ("raycluster", "spec/autoscalerOptions/idleTimeoutSeconds", "300"),
    ("raycluster", "spec/enableInTreeAutoscaling", "true"),
    ("raycluster", "spec/rayVersion", 2.6),
    ("raycluster", "spec/headGroupSpec/rayStartParams/num-cpus", 0),
    ("raycluster", "spec/headGroupSpec/serviceType", "ClusterIp"),
    ("raycluster", "spec/workerGroupSpecs", {}),
    ("raycluster", "spec/workerGroupSpecs/0/maxReplicas", "8"),
    ("raycluster", "spec/workerGroupSpecs/0/template/spec/containers/0/env", {"A": "1"}),
    ("raycluster", "spec/workerGroupSpecs/0/template/spec/containers/0/resources/limits/memory", "14 GB"),
    ("raycluster", "spec/workerGroupSpecs/2/template/spec/terminationGracePeriodSeconds", "110s"),
    ("raycluster", "spec/workerGroupSpecs/3/template/spec/securityContext/runAsUser", "ray"),
    ("rayjob", "spec/backoffLimit", "3"),
    ("rayjob", "spec/backoffLimit", -1),
    ("rayjob", "spec/entrypoint", ["python", "jobs/pipeline.py"]),
    ("rayjob", "spec/shutdownAfterJobFinishes", "yes"),
    ("rayjob", "spec/activeDeadlineSeconds", 0),
    ("rayjob", "spec/rayClusterSpec/gcsFaultToleranceOptions/redisAddress", None),
    ("networkpolicy", "spec/policyTypes", "Ingress"),
    ("storage", "spec/accessModes", "ReadWriteMany"),
    ("storage", "spec/resources/requests/storage", "1Terabyte"),
    ("redis", "spec/resources", []),
]


@pytest.mark.parametrize(("stem", "path", "value"), WRONG)
def test_a_wrong_value_is_found(stem, path, value):
    document = first(stem)
    place: Any = document
    *before, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    for part in before:
        place = place[part]
    place[last] = value
    with pytest.raises(manifests.Invalid):
        manifests.check_kubernetes(document)


def test_the_job_makes_the_same_cluster():
    assert first("rayjob")["spec"]["rayClusterSpec"] == first("raycluster")["spec"]


def test_the_job_resumes():
    spec = first("rayjob")["spec"]
    assert spec["backoffLimit"] >= 1
    words = spec["entrypoint"].split()
    assert words[:2] == ["python", "/app/jobs/pipeline.py"]
    assert words[words.index("--run") + 1] == "savanna", "a fixed name, without a clock"
    assert words[words.index("--store") + 1].startswith("/shared/")
    assert spec["shutdownAfterJobFinishes"], "what ends must not go on costing"


def test_the_versions_are_those_of_the_project():
    pinned = re.search(r'"ray\[[^]]*\]==([\d.]+)"', (manifests.ROOT / "pyproject.toml").read_text())
    assert pinned is not None
    assert first("raycluster")["spec"]["rayVersion"] == pinned[1]


def test_authentication_and_services_stay_inside():
    spec = first("raycluster")["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "wildray-ray-token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not spec["headGroupSpec"].get("enableIngress")
    for document in every():
        assert document["kind"] != "Secret", "secrets are made by hand and named here"
        if document["kind"] == "Service":
            assert document["spec"]["type"] == "ClusterIP"


def test_the_head_takes_no_work_and_avoids_spot():
    head = first("raycluster")["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    ((term,),) = (
        [item["nodeSelectorTerms"] for item in head["template"]["spec"]["affinity"]["nodeAffinity"].values()],
    )
    assert {expression["operator"] for expression in term[0]["matchExpressions"]} == {"NotIn"}


@pytest.mark.parametrize("work", ["decode", "train"])
def test_spot_comes_first_and_has_a_fallback_alike(work):
    groups = {group["groupName"]: group for group in first("raycluster")["spec"]["workerGroupSpecs"]}
    spot, fallback = groups[f"{work}-spot"], groups[f"{work}-on-demand"]
    assert spot["priority"] > fallback["priority"]
    assert spot["labels"] == fallback["labels"] == {"wildray/work": work}
    assert spot["template"]["spec"]["containers"] == fallback["template"]["spec"]["containers"]
    assert "affinity" in spot["template"]["spec"]
    assert "affinity" not in fallback["template"]["spec"]
    limits = spot["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (work == "train")


def test_ray_start_parameters_are_options_of_ray_start():
    from ray.scripts.scripts import start

    known = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}
    spec = first("raycluster")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert set(group["rayStartParams"]) <= known


def test_the_autoscaler_reads_what_it_is_given():
    import inspect

    from ray.autoscaler.v2.instance_manager.config import InstanceReconcileConfig

    source = inspect.getsource(InstanceReconcileConfig)
    for item in first("raycluster")["spec"]["autoscalerOptions"]["env"]:
        assert f'"{item["name"]}"' in source
        assert int(item["value"]) > 0


def test_pods_are_confined_and_sized():
    pods = [pod for document in every() for pod in manifests.pod_specs(document)]
    assert len(pods) == 13
    for name, pod in pods:
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        if not name.endswith("head"):  # its autoscaler asks the API server for pods
            assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            assert not any("value" in item for item in container.get("env", []) if "TOKEN" in item["name"]), name


def test_workers_drain_before_their_pod_is_killed():
    for group in first("raycluster")["spec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        program, script, *words = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert (program, script) == ("python", "/app/cluster/preemption.py")
        arguments = preemption.parse(words)
        assert arguments.now
        assert arguments.seconds < pod["terminationGracePeriodSeconds"]


def test_claims_secrets_and_services_are_named_alike_everywhere():
    documents = every()
    claims = {document["metadata"]["name"] for document in documents if document["kind"] == "PersistentVolumeClaim"}
    services = {document["metadata"]["name"] for document in documents if document["kind"] == "Service"}
    for document in documents:
        for name, pod in manifests.pod_specs(document):
            for volume in pod.get("volumes", []):
                assert volume["persistentVolumeClaim"]["claimName"] in claims, name
            mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
            assert mounted == {volume["name"] for volume in pod.get("volumes", [])}, name
    spec = first("raycluster")["spec"]
    assert spec["gcsFaultToleranceOptions"]["redisAddress"].split("/")[-1].split(":")[0] in services
    tracking = next(item["value"] for item in spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"])
    assert tracking.split("/")[-1].split(":")[0] in services


def test_policies_deny_first_and_keep_the_metadata_service_out():
    policies = manifests.load(PATHS["networkpolicy"])
    deny = policies[0]["spec"]
    assert deny == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "wildray"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    for policy in policies:
        assert policy["metadata"]["name"].startswith("wildray-")
        for rule in policy["spec"].get("ingress", []):
            assert rule.get("from"), "a rule without 'from' lets everyone in"
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                if "ipBlock" in peer:
                    assert "169.254.0.0/16" in peer["ipBlock"]["except"]
