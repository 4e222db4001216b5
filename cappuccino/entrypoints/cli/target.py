"""Which cluster a command is about: the local one, unless a Kubernetes one is asked for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

PLUGIN = "kubectl-cappuccino"


@dataclass(frozen=True, kw_only=True)
class Target:
    """As the options say it. in_cluster: from inside a pod of the operator, by its service account and its database."""

    namespace: str = ""
    state: Path | None = None
    kubernetes: bool = False
    context: str = ""
    kubeconfig: Path | None = None
    in_cluster: bool = False

    @property
    def remote(self) -> bool:
        return self.kubernetes or bool(self.context or self.kubeconfig) or self.in_cluster or called_as_plugin()


def called_as_plugin() -> bool:
    """kubectl calls its plugins by their file's name."""
    return Path(sys.argv[0]).stem == PLUGIN
