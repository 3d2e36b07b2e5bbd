"""Which machines Ray's autoscaler would ask for, given the autoscaler files: its own scheduler, without a cloud."""

import manifests
import pytest


def launched(
    cloud: str, wanted: dict[str, float], *, count: int = 1, work: str | None = None, failed: tuple[str, ...] = ()
) -> dict[str, int]:
    """Machines by node type that ``count`` tasks bring up, after launches of the ``failed`` types failed."""
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    (config,) = manifests.load(manifests.AUTOSCALER[cloud])
    settings = AutoscalingConfig(prepare_config(config), skip_content_hash=True)
    selectors = [[("wildray/work", LabelSelectorOperator.LABEL_OPERATOR_IN, [work])]] if work else None
    requests = [ResourceRequestUtil.make(wanted, label_selectors=selectors) for _ in range(count)]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=settings.get_node_type_configs(),
        max_num_nodes=settings.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(requests),
        recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
    )
    reply = ResourceDemandScheduler().schedule(request)
    return {item.instance_type: item.count for item in reply.to_launch if item.instance_type != "head"}


@pytest.mark.parametrize("cloud", sorted(manifests.AUTOSCALER))
@pytest.mark.parametrize(
    ("wanted", "options", "expected"),
    [
        ({"CPU": 1}, {"work": "decode"}, {"decode_spot": 1}),
        ({"CPU": 1}, {"work": "decode", "count": 9}, {"decode_spot": 2}),
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
def test_the_right_machines_are_launched(cloud, wanted, options, expected):
    assert launched(cloud, wanted, **options) == expected
