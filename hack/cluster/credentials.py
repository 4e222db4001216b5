"""Who the parts of a cluster are to each other: certificates, tokens, kubeconfigs, all below one directory.

The files are written once; a restarted part finds the same ones. Tokens are random, and only the owner may read them.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from hack.cluster.build import binary

ADMIN = "admin"
NODE_NAME = "cappuccino"
WITNESS_NAME = "witness"
# User -> group. The names are those that Kubernetes' own role bindings and its Node authorizer know.
USERS = {
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
    "system:coredns": "",
    f"system:node:{NODE_NAME}": "system:nodes",
    f"system:node:{WITNESS_NAME}": "system:nodes",
}


def write(directory: Path, addresses: Sequence[str]) -> None:
    """Certificates for the addresses, and the token file."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run([binary("kube"), "certificates", directory, *addresses], check=True)
    lines = [f'{secrets.token_hex(20)},{user},{number},"{group}"\n' for number, (user, group) in enumerate(USERS.items())]
    private(directory / "tokens.csv", "".join(lines))


def token(directory: Path, user: str = ADMIN) -> str:
    rows = (line.split(",") for line in (directory / "tokens.csv").read_text().splitlines())
    return next(row[0] for row in rows if row[1] == user)


def kubeconfig(directory: Path, path: Path, *, url: str, user: str = ADMIN) -> Path:
    """Write a kubeconfig with the one context `cappuccino`."""
    authority = base64.b64encode((directory / "ca.crt").read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cappuccino", "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token(directory, user)}}],
        "contexts": [{"name": "cappuccino", "context": {"cluster": "cappuccino", "user": user}}],
        "current-context": "cappuccino",
    }
    private(path, yaml.safe_dump(content, sort_keys=False))
    return path


def private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
