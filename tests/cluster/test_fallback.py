"""How work comes to machines on demand when spot machines cannot be had: Ray's own reconciler, a cloud that says no."""

import time
import uuid
from typing import Any

import pytest
from test_scaling import settings_of


def cloud_without_spot(*, refused: bool) -> Any:
    """A cloud that has no spot machines: it refuses them, or says yes and they never come."""
    from ray.autoscaler.v2.instance_manager.node_provider import CloudInstance, ICloudInstanceProvider, LaunchNodeError
    from ray.core.generated.instance_manager_pb2 import NodeKind

    class Cloud(ICloudInstanceProvider):
        def __init__(self) -> None:
            self.machines: dict[str, CloudInstance] = {}
            self.errors: list[LaunchNodeError] = []
            self.asked: list[str] = []

        def add(self, name: str, node_type: str, *, kind: int = NodeKind.WORKER, request: str = "") -> None:
            self.machines[name] = CloudInstance(
                cloud_instance_id=name,
                node_type=node_type,
                node_kind=kind,
                request_id=request,
                is_running=not node_type.endswith("spot"),
            )

        def get_non_terminated(self) -> dict[str, CloudInstance]:
            return dict(self.machines)

        def terminate(self, ids: list[str], request_id: str) -> None:
            for name in ids:
                self.machines.pop(name, None)

        def launch(self, shape: dict[str, int], request_id: str) -> None:
            for node_type in shape:
                self.asked.append(node_type)
                if refused and node_type.endswith("spot"):
                    self.errors.append(LaunchNodeError(node_type, 1, request_id, time.time_ns()))
                else:
                    self.add(uuid.uuid4().hex, node_type, request=request_id)

        def poll_errors(self) -> list[LaunchNodeError]:
            errors, self.errors = self.errors, []
            return errors

    return Cloud()


def asked_for(config: dict[str, Any], cloud: Any, wanted: str, *, num_rounds: int) -> list[str]:
    """Node types that Ray's autoscaler asks the cloud for, in turn, for one task labelled ``wanted``."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.instance_manager.instance_manager import InstanceManager
    from ray.autoscaler.v2.instance_manager.instance_storage import InstanceStorage
    from ray.autoscaler.v2.instance_manager.reconciler import Reconciler
    from ray.autoscaler.v2.instance_manager.storage import InMemoryStorage
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_instance_updater import CloudInstanceUpdater
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ClusterResourceState, NodeState, NodeStatus
    from ray.core.generated.common_pb2 import LabelSelectorOperator
    from ray.core.generated.instance_manager_pb2 import NodeKind

    monitor = CloudResourceMonitor()
    manager = InstanceManager(
        instance_storage=InstanceStorage(cluster_id="test", storage=InMemoryStorage()),
        instance_status_update_subscribers=[CloudInstanceUpdater(cloud_provider=cloud), monitor],
    )
    selector = [[("wildray/work", LabelSelectorOperator.LABEL_OPERATOR_IN, [wanted])]]
    task = ResourceRequestUtil.make({"CPU": 1}, label_selectors=selector)
    head = {"instance_id": "head", "ray_node_type_name": config["head_node_type"], "node_id": b"h" * 28}
    cloud.add("head", config["head_node_type"], kind=NodeKind.HEAD)
    for version in range(num_rounds):
        state = ClusterResourceState(cluster_resource_state_version=version + 1)
        state.node_states.append(NodeState(status=NodeStatus.RUNNING, **head))
        state.pending_resource_requests.extend(ResourceRequestUtil.group_by_count([task]))
        Reconciler.reconcile(
            instance_manager=manager,
            scheduler=ResourceDemandScheduler(),
            cloud_provider=cloud,
            cloud_resource_monitor=monitor,
            ray_cluster_resource_state=state,
            non_terminated_cloud_instances=cloud.get_non_terminated(),
            autoscaling_config=AutoscalingConfig(config, skip_content_hash=True),
            cloud_provider_errors=cloud.poll_errors(),
        )
        time.sleep(0.4)
    return cloud.asked


@pytest.fixture(autouse=True)
def head_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler.v2.instance_manager.reconciler import Reconciler

    monkeypatch.setattr(Reconciler, "_is_head_node_running", staticmethod(lambda _: True))


def test_on_kubernetes_a_pending_pod_is_given_up_for_one_on_demand(monkeypatch):
    """What the manifests set by environment variable: it is read when Ray is imported, so here in its place."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, InstanceReconcileConfig

    settings = InstanceReconcileConfig(allocate_status_timeout_s=1)
    monkeypatch.setattr(AutoscalingConfig, "get_instance_reconcile_config", lambda _: settings)
    asked = asked_for(settings_of("kuberay"), cloud_without_spot(refused=False), "decode", num_rounds=6)
    assert asked[:2] == ["decode-spot", "decode-on-demand"]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_on_machines_a_refusal_does_not_lead_to_on_demand(cloud):
    """A limit of Ray 2.60, which the files and pages tell of: when this fails, take those words out."""
    asked = asked_for(settings_of(cloud), cloud_without_spot(refused=True), "train", num_rounds=4)
    assert len(asked) > 1
    assert set(asked) == {"train_spot"}


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_on_machines_spot_switched_off_leads_to_on_demand(cloud):
    config = settings_of(cloud)
    config["available_node_types"]["train_spot"]["max_workers"] = 0
    assert asked_for(config, cloud_without_spot(refused=True), "train", num_rounds=2) == ["train_on_demand"]
