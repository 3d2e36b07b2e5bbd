"""Ray's autoscaler on nodes that are processes of this machine: its settings, and what the head must be told.

In: how many workers, how large. Out: the file for ``ray start --autoscaling-config``. Ray's provider of fake nodes ends
each with the processes it started for it; a cloud's provider would end the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROVIDER = "fake_provider.FolderedProvider"
HEAD_ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    # the id that the provider knows the head by
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": "fffffffffffffffffffffffffffffffffffffffffffffffffff00000",
}


def autoscaling_settings(
    gcs_address: str,
    folder: str,
    *,
    max_workers: int,
    cpus: float,
    idle_s: float,
    head_cpus: float,
    object_store_bytes: int,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """Settings of an autoscaler that begins without workers.

    Args:
        gcs_address: HOST:PORT of the head.
        folder: Of the cluster.
        max_workers: Workers it may start.
        cpus: Of each.
        idle_s: Seconds after which it ends one without work.
        head_cpus: CPUs of the head.
        object_store_bytes: Shared memory of each worker.
        labels: Of each worker.
    """
    kind = {"node_config": {}, "min_workers": 0}
    return {
        "cluster_name": "local",
        "max_workers": max_workers,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "gcs_address": gcs_address,
            "folder": folder,
            "use_node_id_as_ip": True,  # since the nodes share one address
            "disable_node_updaters": True,  # nobody logs in to them
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {**kind, "max_workers": 0, "resources": {"CPU": head_cpus}},
            "worker": {
                **kind,
                "max_workers": max_workers,
                "resources": {"CPU": cpus, "object_store_memory": object_store_bytes},
                "labels": dict(labels),
            },
        },
        "head_node_type": "ray.head.default",
        **{f"{part}_commands": [] for part in ("setup", "initialization", "head_setup", "worker_setup")},
        **{f"{part}_start_ray_commands": [] for part in ("head", "worker")},
        **{part: {} for part in ("file_mounts", "auth", "docker")},
        **{part: [] for part in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
        "upscaling_speed": 1.0,
    }
