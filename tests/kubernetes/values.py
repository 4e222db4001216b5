"""What the chart is told on a cluster without a volume provisioner and without a registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CLAIMS = ("database", "artifacts", "exchange")
MARKET_END = "2025-12-31T00:00:00Z"

VALUES: dict[str, Any] = {
    "images": {"tag": "e2e", "pullPolicy": "Never"},
    "database": {"embedded": {"enabled": True, "persistence": {"existingClaim": "database"}}},
    "artifacts": {"existingClaim": "artifacts"},
    "exchange": {
        "enabled": True,
        "start": "2024-05-22T08:00:00Z",
        "speed": 4,
        "startWith": 4,
        "arguments": ["--fee-bps", "25", "--slippage-bps", "5"],
        "persistence": {"existingClaim": "exchange"},
        "market": {
            "symbols": ["BTC/USD", "ETH/USD", "SOL/USD", "TEST/USD"],  # the last for helm test
            "timeframe": "1h",
            "start": "2024-01-01T00:00:00Z",
            "end": MARKET_END,
            "source": {"generator": {"seed": 7, "volatility": 0.005, "driftVolatility": 0.0035, "driftHalfLife": 24}},
        },
    },
    "dashboard": {"enabled": True},
    "workload": {
        "programs": {
            "train": {"requests": {"cpu": "100m", "memory": "400Mi"}},
            "validate": {"requests": {"cpu": "50m", "memory": "200Mi"}},
            "ingest": {"requests": {"cpu": "50m", "memory": "200Mi"}},
            "trade": {"requests": {"cpu": "20m", "memory": "150Mi"}},
        }
    },
}


def volume(name: str, folder: Path, namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A claim and the hostPath volume behind it."""
    size, modes = {"storage": "5Gi"}, ["ReadWriteMany"]
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{name}"},
            "spec": {
                "capacity": size,
                "accessModes": modes,
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder), "type": "Directory"},
                "claimRef": {"namespace": namespace, "name": name},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {
                "accessModes": modes,
                "storageClassName": "",
                "resources": {"requests": size},
                "volumeName": f"{namespace}-{name}",
            },
        },
    )
