"""Readers of the files in deploy/ for tests."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def yaml_objects(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def kubernetes_files() -> list[Path]:
    return sorted(path for path in (DEPLOY / "kuberay").glob("*.yaml") if path.stem != "kustomization")


def ray_cluster(name: str) -> dict[str, Any]:
    """Return the cluster that KubeRay creates: the `spec` of a RayCluster, or the cluster spec of a
    RayJob.
    """
    spec = yaml_objects(DEPLOY / "kuberay" / f"{name}.yaml")[0]["spec"]
    return dict(spec.get("rayClusterSpec", spec))


def containers(name: str) -> Iterator[dict[str, Any]]:
    cluster = ray_cluster(name)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield from group["template"]["spec"]["containers"]


def project_version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def pins(path: Path) -> dict[str, str]:
    """Return the `name==version` lines of a requirements file, names in lower case."""
    pinned = (line.strip().partition("==") for line in path.read_text().splitlines() if "==" in line)
    return {name.lower().replace("_", "-"): version for name, _, version in pinned}
