"""The image: what it copies is there, small, and runs as nobody in particular."""

import re
import shlex

import manifests
import pytest

DOCKERFILE = (manifests.CLUSTER / "Dockerfile").read_text()
INSTRUCTIONS = [
    shlex.split(line)
    for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    if line and not line.startswith(("#", "RUN"))
]
LET_IN = [
    line.removeprefix("!")
    for line in (manifests.ROOT / ".dockerignore").read_text().splitlines()
    if line.startswith("!")
]


def copied() -> list[str]:
    return [
        source
        for word, *words in INSTRUCTIONS
        if word == "COPY" and not words[0].startswith("--from")
        for source in words[:-1]
    ]


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_is_there_and_let_in(source):
    assert (manifests.ROOT / source).exists()
    assert source in LET_IN, f".dockerignore keeps {source} out"


def test_nothing_more_is_let_in():
    assert sorted(LET_IN) == sorted(copied())
    assert (manifests.ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_it_is_nobody_in_particular():
    users = [words[0] for word, *words in INSTRUCTIONS if word == "USER"]
    assert users[-1].isdigit(), "Kubernetes can tell that a number is not root, a name it cannot look up"
    pods = [
        pod for path in manifests.KUBERNETES for item in manifests.load(path) for _, pod in manifests.pod_specs(item)
    ]
    ours = [pod for pod in pods if pod["containers"][0]["image"].startswith("wildray:")]
    assert {str(pod["securityContext"]["runAsUser"]) for pod in ours} == {users[-1]}


def test_its_extra_is_a_build_argument():
    assert "ARG EXTRA=cpu" in DOCKERFILE
    extras = re.findall(r"EXTRA=(\w+)", DOCKERFILE)
    project = (manifests.ROOT / "pyproject.toml").read_text()
    for extra in set(extras):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


def test_paths_in_the_manifests_are_those_of_the_image():
    text = "".join(path.read_text() for path in manifests.KUBERNETES)
    targets = {words[-1] for word, *words in INSTRUCTIONS if word == "COPY"}
    for path in set(re.findall(r"/app/[\w./]+", text)):
        assert any(path == target or path.startswith(target + "/") for target in targets), path
