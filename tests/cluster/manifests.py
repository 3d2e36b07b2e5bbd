"""The files under cluster/, and the schemas that they are held against."""

import copy
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SCHEMAS = Path(__file__).parent / "schemas"
AUTOSCALER = {"aws": CLUSTER / "aws.yaml", "gcp": CLUSTER / "gcp.yaml"}
KUBERNETES = sorted((CLUSTER / "kuberay").glob("*.yaml"))
RAY_ADDS = {"aws": {"SubnetIds"}, "gcp": {"networkConfig", "sourceInstanceTemplate"}}
"""Keys of node_config that Ray reads itself and takes out before it asks the cloud."""
RAY_GIVES = {"MinCount", "MaxCount"}
"""What the cloud requires and Ray fills in."""
PROVIDER = {
    "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "security_group", "use_internal_ips"},
    "gcp": {"type", "region", "availability_zone", "cache_stopped_nodes", "project_id", "use_internal_ips"},
}
"""Keys of ``provider`` that Ray 2.60's node providers read; Ray's own schema takes any."""


class Invalid(Exception):  # noqa: N818
    """A file says something that its reader would refuse, or silently drop."""


def load(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file; anchors become values of their own, so that a test can change one place alone."""
    return [copy_apart(document) for document in yaml.safe_load_all(path.read_text())]


def copy_apart(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: copy_apart(value) for key, value in node.items()}
    return [copy_apart(value) for value in node] if isinstance(node, list) else copy.copy(node)


@functools.cache
def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / name).read_text())


@functools.cache
def registry() -> referencing.Registry:
    files = sorted(SCHEMAS.glob("*.json"))
    resources = [referencing.Resource.from_contents(schema(path.name)) for path in files]
    return referencing.Registry().with_resources([(resource.id(), resource) for resource in resources])


def check(document: object, file: str, definition: str | None = None) -> None:
    """Hold a document against a schema, or one definition in it; raises Invalid with all that is wrong."""
    whole = schema(file)
    wanted = {"$ref": whole["$id"] + (f"#/$defs/{definition}" if definition else "")}
    validator = jsonschema.Draft202012Validator(wanted, registry=registry())
    errors = [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(document)]
    if errors:
        raise Invalid("\n".join(errors))


def check_kubernetes(document: dict[str, Any]) -> None:
    """Hold a manifest against the schema of its kind."""
    for file in ("kubernetes.json", "kuberay.json"):
        kinds = schema(file)["kinds"]
        if document.get("kind") in kinds:
            check(document, file, kinds[document["kind"]])
            return
    raise Invalid(f"unknown kind {document.get('kind')!r}")


def check_autoscaler(config: dict[str, Any]) -> None:
    """Hold an autoscaler file against Ray's own validation, and its node_configs against the cloud's API."""
    from ray._private.label_utils import validate_node_label_syntax
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
        for node_type in config["available_node_types"].values():
            validate_node_label_syntax(node_type["labels"])
    except (jsonschema.ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(str(error)[:500]) from error
    cloud = config["provider"]["type"]
    if unknown := set(config["provider"]) - PROVIDER[cloud]:
        raise Invalid(f"provider: unknown {unknown}")
    for name, node_type in config["available_node_types"].items():
        try:
            check_instance(node_type["node_config"], cloud)
        except Invalid as error:
            raise Invalid(f"{name}: {error}") from error


def check_instance(node_config: dict[str, Any], cloud: str) -> None:
    """Hold one node_config against what the cloud takes when an instance is made."""
    asked = {key: value for key, value in node_config.items() if key not in RAY_ADDS[cloud]}
    if cloud == "aws":
        asked |= dict.fromkeys(RAY_GIVES, 1)
    check(asked, f"{cloud}.json")


def commands(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every shell command of an autoscaler file with where it stands."""
    for place, value in config.items():
        if place.endswith("_commands"):
            yield from ((place, command) for command in value)
    for name, node_type in config["available_node_types"].items():
        yield from ((name, command) for command in node_type.get("worker_setup_commands", []))


def pod_specs(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that a manifest makes, with its name."""
    spec = document.get("spec", {})
    name = document["metadata"]["name"]
    match document["kind"]:
        case "Deployment":
            yield name, spec["template"]["spec"]
        case "RayJob":
            yield f"{name} submitter", spec["submitterPodTemplate"]["spec"]
            yield from pod_specs({**document, "kind": "RayCluster", "spec": spec["rayClusterSpec"]})
        case "RayCluster":
            yield f"{name} head", spec["headGroupSpec"]["template"]["spec"]
            for group in spec["workerGroupSpecs"]:
                yield f"{name} {group['groupName']}", group["template"]["spec"]
