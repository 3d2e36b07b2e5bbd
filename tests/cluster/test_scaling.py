"""Which machines Ray's autoscaler would ask for, given the autoscaler files: its own scheduler, without a cloud."""

from typing import Any

import manifests
import pytest


def settings_of(cluster: str) -> dict[str, Any]:
    """What the autoscaler works by: the file, made whole, or for Kubernetes what Ray makes of the RayCluster."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler._private.util import prepare_config

    if cluster != "kuberay":
        return prepare_config(manifests.load(manifests.AUTOSCALER[cluster])[0])
    (manifest,) = manifests.load(manifests.CLUSTER / "kuberay" / "raycluster.yaml")
    manifest["metadata"]["namespace"] = "default"
    return _derive_autoscaling_config_from_ray_cr(manifest)


def launched(
    cluster: str, wanted: dict[str, float], *, count: int = 1, work: str | None = None, failed: tuple[str, ...] = ()
) -> dict[str, int]:
    """Machines by node type that ``count`` tasks bring up, after launches of the ``failed`` types failed."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    settings = AutoscalingConfig(settings_of(cluster), skip_content_hash=True)
    selectors = [[("wildray/work", LabelSelectorOperator.LABEL_OPERATOR_IN, [work])]] if work else None
    requests = [ResourceRequestUtil.make(wanted, label_selectors=selectors) for _ in range(count)]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=settings.get_node_type_configs(),
        max_num_nodes=settings.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(requests),
        recoverable_resource_availabilities=dict.fromkeys((*failed, *(name.replace("_", "-") for name in failed)), 0.0),
    )
    reply = ResourceDemandScheduler().schedule(request)
    # Kubernetes names its groups with hyphens, and its head is a "headgroup"
    found = {item.instance_type.replace("-", "_"): item.count for item in reply.to_launch}
    return {name: number for name, number in found.items() if not name.startswith("head")}


@pytest.mark.parametrize("cluster", [*sorted(manifests.AUTOSCALER), "kuberay"])
@pytest.mark.parametrize(
    ("wanted", "options", "expected"),
    [
        ({"CPU": 1}, {"work": "decode"}, {"decode_spot": 1}),
        ({"CPU": 1}, {"work": "decode", "count": 9}, {"decode_spot": 2}),  # of 8 CPUs, in pods 7,
        ({"CPU": 1}, {}, {"decode_spot": 1}),  # what says nothing does not get a machine with a GPU
        ({"CPU": 1, "GPU": 1}, {}, {"train_spot": 1}),
        ({"CPU": 1, "GPU": 1}, {"work": "train", "count": 3}, {"train_spot": 3}),
        ({"CPU": 1}, {"work": "train"}, {"train_spot": 1}),
        ({"CPU": 1}, {"work": "decode", "failed": ("decode_spot",)}, {"decode_on_demand": 1}),
        ({"GPU": 1}, {"work": "train", "failed": ("train_spot",)}, {"train_on_demand": 1}),
        ({"GPU": 1}, {"work": "train", "count": 9}, {"train_spot": 4, "train_on_demand": 1}),  # the ceiling of the cost
        ({"GPU": 2}, {}, {}),  # no such machine
        ({"CPU": 1}, {"work": "none"}, {}),  # the head takes no work, whoever asks
    ],
)
def test_the_right_machines_are_launched(cluster, wanted, options, expected):
    assert launched(cluster, wanted, **options) == expected
