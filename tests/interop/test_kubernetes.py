"""deploy/kubernetes: kustomize builds it, and it fits Kubernetes' own schemas."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.interop.support import deployment

kubernetes_validate = pytest.importorskip("kubernetes_validate")
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl"),
]


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    secrets, url, apply = deployment.KUBERNETES
    folder = deployment.copy(tmp_path_factory.mktemp("kubernetes"), f"{secrets}\n{url}")
    assert apply == "kubectl apply -k deploy/kubernetes"
    command = ["kubectl", "kustomize", "deploy/kubernetes"]
    built = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(built.stdout))


def of_kind(resources: list[Any], *kinds: str) -> list[Any]:
    return [each for each in resources if each["kind"] in kinds]


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_every_resource_fits_its_schema(version: str, resources: list[Any]) -> None:
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)
    assert {each["kind"] for each in resources} >= {"Deployment", "StatefulSet", "NetworkPolicy"}
    assert {each["metadata"].get("namespace", "grpcerrors") for each in resources} == {"grpcerrors"}


def test_what_pods_mount_exists(resources: list[Any]) -> None:
    made = {
        (each["kind"].lower(), each["metadata"]["name"]): set(each["data"])
        for each in of_kind(resources, "Secret", "ConfigMap")
    }
    for workload in of_kind(resources, "Deployment", "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        files: set[str] = set()
        for volume in pod["volumes"]:
            if secret := volume.get("secret"):
                files |= made["secret", secret["secretName"]]
            if config := volume.get("configMap"):
                files |= made["configmap", config["name"]]
        (container,) = pod["containers"]
        words = [*container["args"], *container["readinessProbe"]["exec"]["command"]]
        for word in words:
            if "=/" in word:
                assert word.rpartition("/")[2] in files, word
        for variable in container["env"]:
            if key := variable["valueFrom"].get("secretKeyRef"):
                assert key["key"] in made["secret", key["name"]]


def test_selectors_find_the_pods(resources: list[Any]) -> None:
    labels = [
        workload["spec"]["template"]["metadata"]["labels"]
        for workload in of_kind(resources, "Deployment", "StatefulSet")
    ]
    selectors = [each["spec"]["selector"] for each in of_kind(resources, "Service")]
    budgets = of_kind(resources, "PodDisruptionBudget")
    selectors += [each["spec"]["selector"]["matchLabels"] for each in budgets]
    policies = of_kind(resources, "NetworkPolicy")
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in policies]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector in labels


def test_nothing_runs_as_root(resources: list[Any]) -> None:
    for workload in of_kind(resources, "Deployment", "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
