"""The autoscaler files: what Ray and the clouds take, what they must say, and that a typo anywhere is found."""

import copy
import re
import shlex
import subprocess
import time
from typing import Any

import manifests
import preemption
import pytest
import yaml

CLOUDS = sorted(manifests.AUTOSCALER)


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(cloud: str) -> dict[str, Any]:
    (document,) = manifests.load(manifests.AUTOSCALER[cloud])
    return document


def at(node: Any, path: str) -> tuple[Any, Any]:
    """The container and the key that a path of names and numbers ends in."""
    *before, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    for part in before:
        node = node[part]
    return node, last


def rename(node: Any, path: str, new: str) -> None:
    container, key = at(node, path)
    container[new] = container.pop(key)


def put(node: Any, path: str, value: object) -> None:
    container, key = at(node, path)
    container[key] = value


def test_accepted(config):
    manifests.check_autoscaler(config)


TYPES = "available_node_types"
TYPOS = {
    "both": [
        ("idle_timeout_minutes", "idle_timeout_minute"),
        ("max_workers", "max_worker"),
        ("head_node_type", "head_type"),
        ("worker_start_ray_commands", "worker_start_commands"),
        ("provider/region", "regoin"),
        ("provider/cache_stopped_nodes", "cached_stopped_nodes"),
        (f"{TYPES}/decode_spot/max_workers", "max_replicas"),
        (f"{TYPES}/decode_spot/labels", "label"),
        (f"{TYPES}/decode_spot/labels/wildray~work", "wildray/work/kind"),
        (f"{TYPES}/train_spot/priority", "prioritiy"),
        (f"{TYPES}/train_spot/idle_timeout_s", "idle_timeout"),
        (f"{TYPES}/head/resources", "resource"),
        (f"{TYPES}/head/node_config", "node_conf"),
    ],
    "aws": [
        (f"{TYPES}/head/node_config/InstanceType", "instanceType"),
        (f"{TYPES}/decode_spot/node_config/InstanceMarketOptions", "InstanceMarketOption"),
        (f"{TYPES}/decode_spot/node_config/InstanceMarketOptions/MarketType", "Markettype"),
        (f"{TYPES}/train_spot/node_config/InstanceMarketOptions/SpotOptions/SpotInstanceType", "InstanceType"),
        (f"{TYPES}/train_spot/node_config/BlockDeviceMappings/0/Ebs/VolumeSize", "VolumeSizeGb"),
        (f"{TYPES}/train_on_demand/node_config/MetadataOptions/HttpTokens", "HttpToken"),
    ],
    "gcp": [
        (f"{TYPES}/head/node_config/machineType", "machine_type"),
        (f"{TYPES}/decode_spot/node_config/scheduling", "schedule"),
        (f"{TYPES}/decode_spot/node_config/scheduling/provisioningModel", "provisionModel"),
        (f"{TYPES}/train_spot/node_config/disks/0/initializeParams/diskSizeGb", "diskSizeGB"),
        (f"{TYPES}/train_spot/node_config/disks/0/autoDelete", "autodelete"),
        (f"{TYPES}/head/node_config/shieldedInstanceConfig/enableVtpm", "enableTPM"),
    ],
}
WRONG = {
    "both": [
        ("max_workers", "twelve"),
        ("idle_timeout_minutes", -1),
        ("available_node_types", []),
        ("setup_commands", "pip install wildray"),
        ("head_node_type", "heads"),
        (f"{TYPES}/decode_spot/max_workers", "8"),
        (f"{TYPES}/decode_spot/priority", 1.5),
        (f"{TYPES}/decode_spot/resources", {"CPU": "8"}),
        (f"{TYPES}/train_spot/labels", {"wildray/work": 1}),
        (f"{TYPES}/train_spot/labels", {"wildray/work": "not a label"}),
        (f"{TYPES}/train_spot/node_config", None),
    ],
    "aws": [
        (f"{TYPES}/head/node_config/InstanceType", "m7i.largest"),
        (f"{TYPES}/decode_spot/node_config/InstanceMarketOptions/MarketType", "spott"),
        (f"{TYPES}/decode_spot/node_config/InstanceMarketOptions", "spot"),
        (f"{TYPES}/train_spot/node_config/BlockDeviceMappings", {"DeviceName": "/dev/sda1"}),
        (f"{TYPES}/train_spot/node_config/BlockDeviceMappings/0/Ebs/VolumeSize", "150"),
        (f"{TYPES}/train_spot/node_config/MetadataOptions/HttpPutResponseHopLimit", "one"),
    ],
    "gcp": [
        (f"{TYPES}/head/node_config/disks/0/boot", "yes"),
        (f"{TYPES}/decode_spot/node_config/scheduling", [{"preemptible": True}]),
        (f"{TYPES}/decode_spot/node_config/scheduling/provisioningModel", "SPOTTY"),
        (f"{TYPES}/train_spot/node_config/disks/0/initializeParams/diskSizeGb", "150G"),
        (f"{TYPES}/train_spot/node_config/status", "RUNNING"),
    ],
}


def planted(kind: dict[str, list[tuple[str, Any]]]) -> list[tuple[str, str, Any]]:
    return [(cloud, path, new) for cloud in CLOUDS for path, new in (*kind["both"], *kind[cloud])]


@pytest.mark.parametrize(("cloud", "path", "new"), planted(TYPOS))
def test_a_misspelt_name_is_found(config, path, new):
    if path.endswith("~work"):
        labels, _ = at(config, path)
        labels[new] = labels.pop("wildray/work")
    else:
        rename(config, path, new)
    with pytest.raises(manifests.Invalid):
        manifests.check_autoscaler(config)


@pytest.mark.parametrize(("cloud", "path", "value"), planted(WRONG))
def test_a_wrong_value_is_found(config, path, value):
    put(config, path, value)
    with pytest.raises(manifests.Invalid):
        manifests.check_autoscaler(config)


def test_every_name_in_every_node_config_counts(cloud, config):
    """Each name of each node_config in turn, at whatever depth, misspelt by one letter."""

    def names(node: Any, path: tuple[Any, ...] = ()) -> Any:
        if isinstance(node, dict):
            for key, value in node.items():
                yield (*path, key)
                yield from names(value, (*path, key))
        elif isinstance(node, list):
            for number, value in enumerate(node):
                yield from names(value, (*path, number))

    tried = 0
    for node_type in config[TYPES].values():
        manifests.check_instance(node_type["node_config"], cloud)
        for *before, last in names(node_type["node_config"]):
            spoilt = copy.deepcopy(node_type["node_config"])
            place: Any = spoilt
            for part in before:
                place = place[part]
            place[last + "x"] = place.pop(last)
            with pytest.raises(manifests.Invalid):
                manifests.check_instance(spoilt, cloud)
            tried += 1
    assert tried > 30


def test_the_head_takes_no_work_and_is_never_on_spot(config):
    assert config[TYPES][config["head_node_type"]]["resources"] == {"CPU": 0}
    assert not is_spot(config[TYPES]["head"]["node_config"])


def is_spot(node_config: dict[str, Any]) -> bool:
    spot = node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return spot or node_config.get("scheduling", {}).get("provisioningModel") == "SPOT"


@pytest.mark.parametrize("work", ["decode", "train"])
def test_spot_comes_first_and_has_a_fallback_alike(config, work):
    spot, fallback = config[TYPES][f"{work}_spot"], config[TYPES][f"{work}_on_demand"]
    assert is_spot(spot["node_config"])
    assert not is_spot(fallback["node_config"])
    assert spot["priority"] > fallback["priority"]
    for name in ("resources", "labels", "worker_setup_commands"):
        assert spot.get(name) == fallback.get(name)
    assert spot["labels"] == {"wildray/work": work}
    assert ("GPU" in spot["resources"]) == (work == "train")
    market = {"InstanceMarketOptions", "scheduling"}
    assert {key: value for key, value in spot["node_config"].items() if key not in market} == {
        key: value for key, value in fallback["node_config"].items() if key not in market
    }


def test_shell_commands_parse(config):
    for place, command in manifests.commands(config):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{place}: {done.stderr}"


def ray_starts(config: dict[str, Any]) -> list[str]:
    lines = [command for place, command in manifests.commands(config) if "start_ray" in place]
    return [line for line in lines if re.search(r"\bray start\b", line)]


def test_ray_start_knows_its_options_and_authenticates(config):
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    head, worker = ray_starts(config)
    for line in (head, worker):
        words = shlex.split(line.partition("ray start")[2])
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
        assert "RAY_AUTH_MODE=token" in line
        assert "MLFLOW_TRACKING_URI=http://" in line
    assert "--dashboard-host=127.0.0.1" in head, "the dashboard must not listen for others"
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_start_commands_do_what_they_say(tmp_path, config, kind):
    """Run by a shell whose home has stand-ins for ray, python and wildray, which write down how they were called."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    stay = "for _ in $(seq 200); do [ -e ~/over ] && exit; sleep 0.1; done"  # as a server does
    for name in ("ray", "python", "wildray"):
        call = f'echo "{name} $* mode=$RAY_AUTH_MODE mlflow=$MLFLOW_TRACKING_URI" >> ~/calls'
        (programs / name).write_text(f"#!/bin/sh\n{call}\n{'' if name == 'ray' else stay}\n")
        (programs / name).chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "RAY_HEAD_IP": "10.1.2.3"}
    for _ in range(2):  # the second time around, as after another 'ray up'
        for command in config[f"{kind}_start_ray_commands"]:
            here = command.replace("/shared/", f"{tmp_path}/shared/")
            subprocess.run(["bash", "-c", here], env=environment, check=True, capture_output=True, timeout=30)
        deadline = time.monotonic() + 10
        while not re.search("^(python|wildray)", (tmp_path / "calls").read_text(), re.MULTILINE):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    (tmp_path / "over").touch()
    calls = (tmp_path / "calls").read_text().splitlines()
    (started, *_) = [call for call in calls if call.startswith("ray start")]
    assert "mode=token mlflow=http://" in started
    if kind == "head":
        assert "--head" in started
        assert re.search(r"mlflow=http://\d+(\.\d+){3}:5000", started)
        kept = [call for call in calls if call.startswith(f"wildray mlflow --store {tmp_path}/shared/store --host ")]
    else:
        assert "--address=10.1.2.3:6379" in started
        assert "mlflow=http://10.1.2.3:5000" in started
        kept = [call for call in calls if call.startswith(f"python {tmp_path}/wildray/preemption.py --cloud ")]
        assert all("--address 10.1.2.3:6379 mode=token" in call for call in kept)
    assert len(kept) == 1, "the second start finds the first one's lock"


def test_workers_run_the_preemption_agent(cloud, config):
    lines = [line for line in config["worker_start_ray_commands"] if "preemption.py" in line]
    (words,) = (shlex.split(line.partition("preemption.py")[2].partition("<")[0]) for line in lines)
    arguments = preemption.parse(words)
    assert arguments.cloud == cloud
    assert arguments.address == "$RAY_HEAD_IP:6379"
    assert "RAY_AUTH_MODE=token" in lines[0]
    assert "preemption.py" in " ".join(config["file_mounts"])


def test_what_is_sent_is_there_and_the_token_only_as_a_file(config):
    made = {"dist/", "~/.ray/auth_token"}
    sources = set(config["file_mounts"].values())
    assert made <= sources
    for source in sources - made:
        assert (manifests.ROOT / source).exists()
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    text = yaml.safe_dump(config)
    assert "chmod 600 ~/.ray/auth_token" in " ".join(text.split())
    assert "RAY_AUTH_TOKEN" not in text
    assert not re.search(r"\b[0-9a-f]{32,}\b", text), "a token or key in a file"


def test_no_port_is_opened(config):
    assert "IpPermissions" not in config["provider"].get("security_group", {})
    assert "0.0.0.0" not in yaml.safe_dump(config)
    for node_type in config[TYPES].values():
        assert "NetworkInterfaces" not in node_type["node_config"]


def test_every_type_installs_the_wheel_for_its_hardware(config):
    for name, node_type in config[TYPES].items():
        lines = node_type.get("worker_setup_commands", config["setup_commands"])
        extra = "gpu" if node_type["resources"].get("GPU") else "cpu"
        assert any(f"wildray-*.whl)[{extra}]" in line for line in lines), name
        assert any("/shared" in line for line in lines), f"{name} does not mount the shared folder"
