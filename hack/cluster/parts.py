"""The command lines of the control plane's parts, for a directory, an address and ports.

Every part finds its credentials in `directory/credentials`. Only the API server listens for others; etcd is on loopback.
Short periods everywhere a person would wait: a node is lost after 20 s, and its pods are evicted 10 s later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVICES = "10.247.0.0/16"
KUBERNETES_SERVICE = "10.247.0.1"
NODE_GRACE_SECONDS = 20
EVICT_AFTER_SECONDS = 10
# In a cluster with several of them the leaders end when they cannot renew their lease, and are started anew. Here they have
# no lease, so they end and start with those that would keep it. Else they would call a node lost that they cannot see.
LEADERS = ("controller-manager", "scheduler")
LEASE_KEEPERS = ("etcd", "apiserver")
CLIENT_QPS = 200  # of controller-manager and scheduler; their defaults, 20 and 50, are for large clusters' protection


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Where a control plane lives. `address` is where the API server listens and where its clients find it."""

    directory: Path
    address: str
    apiserver_port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.apiserver_port}"

    @property
    def credentials(self) -> Path:
        return self.directory / "credentials"

    def kubeconfig(self, part: str) -> Path:
        return self.credentials / f"{part}.kubeconfig"


def etcd(plane: Plane) -> list[str]:
    clients, peers = f"http://127.0.0.1:{plane.etcd_port}", f"http://127.0.0.1:{plane.etcd_peer_port}"
    return [
        "etcd",
        f"--data-dir={plane.directory / 'etcd'}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",  # nothing here outlives the machine
        f"--quota-backend-bytes={8 << 30}",
        "--log-level=warn",
    ]


def apiserver(plane: Plane, *, nodes: bool) -> list[str]:
    """`nodes`: pods are to reach it under the Service `kubernetes`, which cannot point to a loopback address."""
    credentials = plane.credentials
    return [
        "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{plane.etcd_port}",
        f"--bind-address={plane.address}",
        f"--secure-port={plane.apiserver_port}",
        f"--endpoint-reconciler-type={'lease' if nodes else 'none'}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={credentials / 'serving.crt'}",
        f"--tls-private-key-file={credentials / 'serving.key'}",
        f"--token-auth-file={credentials / 'tokens.csv'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={credentials / 'accounts.key'}",
        f"--service-account-signing-key-file={credentials / 'accounts.key'}",
        f"--kubelet-certificate-authority={credentials / 'ca.crt'}",
        f"--kubelet-client-certificate={credentials / 'kubelet-client.crt'}",
        f"--kubelet-client-key={credentials / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--default-not-ready-toleration-seconds={EVICT_AFTER_SECONDS}",
        f"--default-unreachable-toleration-seconds={EVICT_AFTER_SECONDS}",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def controller_manager(plane: Plane) -> list[str]:
    return [
        "kube-controller-manager",
        f"--kubeconfig={plane.kubeconfig('controller-manager')}",
        f"--service-account-private-key-file={plane.credentials / 'accounts.key'}",
        f"--root-ca-file={plane.credentials / 'ca.crt'}",
        "--use-service-account-credentials=true",
        f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
        "--node-monitor-period=2s",
        *_alone(),
    ]


def scheduler(plane: Plane) -> list[str]:
    return ["kube-scheduler", f"--kubeconfig={plane.kubeconfig('scheduler')}", *_alone()]


def _alone() -> list[str]:
    """There is one of each, and nobody asks it for metrics."""
    return ["--leader-elect=false", "--secure-port=0", f"--kube-api-qps={CLIENT_QPS}", f"--kube-api-burst={2 * CLIENT_QPS}"]
