"""The files that the parts of a node read: containerd, CNI, kubelet, CoreDNS, and the objects of cluster DNS and volumes."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from string import Template

import yaml

from hack.cluster import cgroups, credentials
from hack.cluster.parts import NODE_GRACE_SECONDS, Plane

PODS = "10.246.0.0/16"
DNS_SERVICE = "10.247.0.10"
DOMAIN = "cluster.local"
DNS_READY_PORT = 8181
SOCKET = "/run/containerd/containerd.sock"  # in the node's own /run
PAUSE_IMAGE = "cappuccino.dev/cluster/pause:1"
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))  # Debian's, and the usual one
RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))  # the second has what the first may hide
VOLUMES = 16
OBJECTS = Path(__file__).with_name("objects.yaml")


def cni_folder() -> Path | None:
    return next((folder for folder in CNI_FOLDERS if (folder / "bridge").exists()), None)


def write(plane: Plane, slot: int) -> None:
    """All files of the node, below the plane's directory."""
    directory = plane.directory
    for name, content in {
        "containerd.toml": _containerd(directory),
        "cni/cappuccino.conflist": json.dumps(_cni(), indent=2),
        "kubelet.yaml": yaml.safe_dump(_kubelet(plane, slot), sort_keys=False),
        "Corefile": _corefile(plane),
        "objects.yaml": _objects(plane),
    }.items():
        path = directory / "configuration" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def kubelet(plane: Plane) -> list[str]:
    return [
        "kubelet",
        f"--config={plane.directory / 'configuration/kubelet.yaml'}",
        f"--kubeconfig={plane.kubeconfig('kubelet')}",
        f"--hostname-override={credentials.NODE_NAME}",
        f"--node-ip={plane.address}",
    ]


def kube_proxy(plane: Plane) -> list[str]:
    return [
        "kube-proxy",
        f"--kubeconfig={plane.kubeconfig('kube-proxy')}",
        f"--hostname-override={credentials.NODE_NAME}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={PODS}",
        "--nodeport-addresses=primary",
        # Leave the connection table's size and time-outs as the machine has them.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def resolv_conf() -> str:
    """The machine's name servers that the node can reach: those on loopback are not among them."""
    for path in RESOLV_CONFS:
        lines = path.read_text().splitlines() if path.exists() else []
        servers = [line for line in lines if line.startswith("nameserver") and not line.split()[1].startswith(("127.", "::1"))]
        if servers:
            return "\n".join(servers) + "\n"
    return ""


def _containerd(directory: Path) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox would fail.
    return f"""version = 2
root = {json.dumps(str(directory / "containerd"))}
state = "/run/containerd"

[grpc]
address = "{SOCKET}"

[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true

[{cri}.cni]
bin_dir = "{cni_folder()}"
conf_dir = {json.dumps(str(directory / "configuration/cni"))}

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _cni() -> dict[str, object]:
    pods = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": pods}
    return {
        "cniVersion": "0.4.0",
        "name": "cappuccino",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _kubelet(plane: Plane, slot: int) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.credentials / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(plane.credentials / "serving.crt"),
        "tlsPrivateKeyFile": str(plane.credentials / "serving.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups.root(slot),
        "kubeletCgroups": f"{cgroups.root(slot)}/kubelet",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": DOMAIN,
        "resolvConf": "/etc/resolv.conf",
        "maxPods": 250,
        "maxOpenFiles": resource.getrlimit(resource.RLIMIT_NOFILE)[1],  # more would need CAP_SYS_RESOURCE
        "nodeStatusUpdateFrequency": "5s",
        "nodeLeaseDurationSeconds": NODE_GRACE_SECONDS,
        # The machine's disk is not the cluster's to manage: neither images nor pods go because others fill it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
    }


def _corefile(plane: Plane) -> str:
    forward = "forward . /etc/resolv.conf\n    " if resolv_conf() else ""
    return f""".:53 {{
    bind {plane.address}
    errors
    ready {plane.address}:{DNS_READY_PORT}
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {plane.kubeconfig("coredns")} cappuccino
        ttl 5
    }}
    {forward}cache 5
}}
"""


def _objects(plane: Plane) -> str:
    """What the cluster starts with. A volume is a folder that every user may write, as no part changes its owner."""
    dns = Template(OBJECTS.read_text()).substitute(address=plane.address, service=DNS_SERVICE)
    volumes = [_volume(plane.directory, number) for number in range(VOLUMES)]
    return dns + "---\n" + yaml.safe_dump_all(volumes, sort_keys=False)


def _volume(directory: Path, number: int) -> dict[str, object]:
    folder = directory / f"volumes/{number:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{credentials.NODE_NAME}-{number:02d}"},
        "spec": {
            "storageClassName": "standard",
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder)},
        },
    }
