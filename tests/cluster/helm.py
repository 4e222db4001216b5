"""The real helm, with the chart: rendering needs no server, releases live on one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hack.cluster.build import binary
from hack.cluster.control_plane import ControlPlane

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/cappuccino"
VALUES_FILES = sorted([*(CHART / "ci").glob("*.yaml"), *(CHART / "examples").glob("*/values.yaml")])
TRY = CHART / "ci/try-values.yaml"
KUBERNETES = "1.34.0"  # that a rendering without a server takes for granted


@dataclass(frozen=True, kw_only=True)
class Helm:
    """`home` gets its cache and configuration. Calling it never raises; `ok` expects success."""

    home: Path
    kubeconfig: Path | None = None
    namespace: str = "default"

    @classmethod
    def of(cls, plane: ControlPlane, namespace: str) -> Helm:
        return cls(home=plane.kubeconfig.parent / "helm", kubeconfig=plane.kubeconfig, namespace=namespace)

    def __call__(self, *arguments: str | Path, within: float = 120) -> subprocess.CompletedProcess[str]:
        folders = {f"HELM_{name}_HOME": str(self.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        environment = {**os.environ, **folders, "KUBECONFIG": str(self.kubeconfig or os.devnull)}
        line = [binary("helm"), f"--namespace={self.namespace}", *map(str, arguments)]
        return subprocess.run(line, env=environment, text=True, capture_output=True, timeout=within)

    def ok(self, *arguments: str | Path) -> str:
        done = self(*arguments)
        assert done.returncode == 0, f"helm {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout

    def template(self, *arguments: str | Path, release: str = "cappuccino") -> list[dict[str, Any]]:
        """The documents that an installation makes, hooks included."""
        text = self.ok("template", release, CHART, f"--kube-version={KUBERNETES}", *arguments)
        return [document for document in yaml.safe_load_all(text) if document]

    def refusal(self, *arguments: str | Path) -> str:
        done = self("template", "cappuccino", CHART, f"--kube-version={KUBERNETES}", *arguments)
        assert done.returncode != 0, f"accepted: {' '.join(map(str, arguments))}"
        return done.stderr


def one(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    found = [document for document in documents if document["kind"] == kind and document["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}: {[(d['kind'], d['metadata']['name']) for d in documents]}"
    return found[0]


def of_kind(documents: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [document for document in documents if document["kind"] in kinds]


def pod_templates(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind/name, pod) of every pod that the documents would start."""
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            yield name, document
        elif document["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, document["spec"]["template"]
