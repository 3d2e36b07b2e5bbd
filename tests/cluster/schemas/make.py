"""Make the schemas that the manifests are checked against, from what the clouds and Kubernetes publish.

In: the wheels of botocore, google-api-python-client and kubernetes-validate. Out: aws.json, gcp.json and
kubernetes.json beside this file, JSON Schemas cut to what an instance or a pod is made of, which refuse unknown names.

    pip download --no-deps -d wheels botocore google-api-python-client kubernetes-validate
    python tests/cluster/schemas/make.py wheels

kuberay.json is written by hand (it says from what), since KubeRay's definitions are in no Python package. The SDKs
themselves are no dependency of the tests: their checks come with clients that want a region, credentials and a network.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DRAFT = "https://json-schema.org/draft/2020-12/schema"
EC2 = "botocore/data/ec2/2016-11-15/service-2.json.gz"
COMPUTE = "googleapiclient/discovery_cache/documents/compute.v1.json"
KUBERNETES = "kubernetes_validate/kubernetes-json-schema/{version}-local-strict/_definitions.json"
KINDS = {
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "Deployment": "io.k8s.api.apps.v1.Deployment",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "PersistentVolumeClaim": "io.k8s.api.core.v1.PersistentVolumeClaim",
    "Service": "io.k8s.api.core.v1.Service",
}
QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""The pattern that Kubernetes' own definitions generator writes for resource.Quantity."""


def reachable(starts: list[str], definitions: dict[str, Any], names_in: Callable[[Any], Iterator[str]]) -> list[str]:
    """Names of all definitions that the first ones need, sorted."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += names_in(definitions[name])
    return sorted(found)


def references(node: Any) -> Iterator[str]:
    """Last part of every ``$ref`` below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


# -- EC2


def shapes_in(shape: dict[str, Any]) -> Iterator[str]:
    """Names of the shapes that a botocore shape is made of."""
    yield from (member["shape"] for member in shape.get("members", {}).values())
    yield from (shape[part]["shape"] for part in ("member", "key", "value") if part in shape)


def from_shape(shape: dict[str, Any]) -> dict[str, Any]:
    """A botocore shape as a JSON Schema."""

    def to(part: dict[str, Any]) -> dict[str, Any]:
        return {"$ref": f"#/$defs/{part['shape']}"}

    match shape["type"]:
        case "structure":
            properties = {name: to(member) for name, member in shape["members"].items()}
            made = {"type": "object", "properties": properties, "additionalProperties": False}
            return made | ({"required": shape["required"]} if shape.get("required") else {})
        case "list":
            return {"type": "array", "items": to(shape["member"])}
        case "map":
            return {"type": "object", "additionalProperties": to(shape["value"])}
        case "integer" | "long":
            return {"type": "integer"} | {f"{end}imum": shape[end] for end in ("min", "max") if end in shape}
        case "double" | "float":
            return {"type": "number"}
        case "boolean":
            return {"type": "boolean"}
        case _:
            return {"type": "string"} | {word: shape[word] for word in ("enum", "pattern") if word in shape}


def aws(wheel: Path) -> dict[str, Any]:
    """What RunInstances takes."""
    with zipfile.ZipFile(wheel) as files:
        shapes = json.loads(gzip.decompress(files.read(EC2)))["shapes"]
    names = reachable(["RunInstancesRequest"], shapes, shapes_in)
    return {"$ref": "#/$defs/RunInstancesRequest", "$defs": {name: from_shape(shapes[name]) for name in names}}


# -- Compute Engine


def from_discovery(node: Any) -> Any:
    """A discovery document's schema as a JSON Schema; what only answers hold is left out, so that it is refused."""
    if "$ref" in node:
        return {"$ref": f"#/$defs/{node['$ref']}"}
    match node.get("type"):
        case "object" if "properties" in node:
            given = {
                name: from_discovery(value)
                for name, value in node["properties"].items()
                if not re.match(r"\W*output only", value.get("description", ""), re.IGNORECASE)
            }
            return {"type": "object", "properties": given, "additionalProperties": False}
        case "object":
            return {"type": "object", "additionalProperties": from_discovery(node.get("additionalProperties", {}))}
        case "array":
            return {"type": "array", "items": from_discovery(node["items"])}
        case "string" if node.get("format") in ("int64", "uint64"):  # JSON's numbers are taken too
            return {"type": ["string", "integer"], "pattern": r"^-?\d+$"}
        case None | "any":
            return {}
        case kind:
            return {"type": kind} | ({"enum": node["enum"]} if "enum" in node else {})


def gcp(wheel: Path) -> dict[str, Any]:
    """What instances.insert takes."""
    with zipfile.ZipFile(wheel) as files:
        document = json.loads(files.read(COMPUTE))
    made = {name: from_discovery(schema) for name, schema in document["schemas"].items()}
    names = reachable(["Instance"], made, references)
    return {
        "$comment": f"compute v1, revision {document['revision']}",
        "$ref": "#/$defs/Instance",
        "$defs": {name: made[name] for name in names},
    }


# -- Kubernetes


def from_kubernetes(node: Any) -> Any:
    """Kubernetes' strict schema without prose, and without null as a value of everything."""
    if isinstance(node, list):
        return [from_kubernetes(value) for value in node]
    if not isinstance(node, dict):
        return node
    made = {
        key: from_kubernetes(value)
        for key, value in node.items()
        if not (key == "description" and isinstance(value, str)) and not key.startswith("x-kubernetes-")
    }
    if isinstance(made.get("type"), list):
        kinds = [kind for kind in made["type"] if kind != "null"]
        made["type"] = kinds[0] if len(kinds) == 1 else kinds
    if isinstance(made.get("$ref"), str):
        made["$ref"] = "#/$defs/" + made["$ref"].rpartition("/")[2]
    return made


def kubernetes(wheel: Path, release: str) -> dict[str, Any]:
    """Pods, and the kinds that the manifests use beside KubeRay's own."""
    with zipfile.ZipFile(wheel) as files:
        definitions = json.loads(files.read(KUBERNETES.format(version=f"v{release}")))["$defs"]
    made = {name: from_kubernetes(schema) for name, schema in definitions.items()}
    made["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"], "pattern": QUANTITY}
    names = reachable([*KINDS.values(), "io.k8s.api.core.v1.PodTemplateSpec"], made, references)
    return {"$defs": {name: made[name] for name in names}, "kinds": KINDS}


def main(folder: Path) -> None:
    """Write the three schemas from the wheels in a folder."""
    makers: dict[str, tuple[str, Callable[[Path, str], dict[str, Any]], str]] = {
        "aws.json": ("botocore", lambda wheel, _: aws(wheel), EC2),
        "gcp.json": ("google-api-python-client", lambda wheel, _: gcp(wheel), COMPUTE),
        "kubernetes.json": ("kubernetes-validate", kubernetes, KUBERNETES),
    }
    for name, (package, make, inside) in makers.items():
        (wheel,) = folder.glob(f"{package.replace('-', '_')}-*.whl")
        release = wheel.name.split("-")[1]
        source = {
            "$schema": DRAFT,
            "$id": f"https://wildray.invalid/{name}",
            "title": f"From https://pypi.org/project/{package}/{release}/, {inside.format(version=f'v{release}')}",
        }
        text = json.dumps(source | make(wheel, release), separators=(",", ":"))
        (HERE / name).write_text(text.replace('"},"', '"},\n"') + "\n")  # lines, for the sake of diffs
        print(f"{name}: {len(text):,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
