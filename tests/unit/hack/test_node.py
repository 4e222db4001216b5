"""The parts of a node that can be judged without one."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
import yaml

from cappuccino.core.errors import UserError
from hack.cluster import configuration, credentials, requirements, uplink
from hack.cluster.parts import Plane

LISTED = """\
-P FORWARD ACCEPT
-N KUBE-FORWARD
-A FORWARD -i cappuccino0 -m comment --comment "cappuccino:0" -j ACCEPT
-A FORWARD -i cappuccino1 -m comment --comment cappuccino:1 -j ACCEPT
-A FORWARD -i cappuccino10 -m comment --comment "cappuccino:10" -j ACCEPT
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -i docker0 -j ACCEPT
"""


def plane(directory: Path) -> Plane:
    (directory / "credentials").mkdir()
    (directory / "credentials/ca.crt").write_text("authority")
    (directory / "credentials/tokens.csv").write_text('secret,admin,0,"system:masters"\nother,system:coredns,1,""\n')
    return Plane(directory=directory, address="10.245.0.2")


def test_only_rules_of_slots_without_an_interface_are_orphans() -> None:
    assert uplink.orphans(LISTED, lambda slot: slot == 0) == [
        ["FORWARD", "-i", "cappuccino1", "-m", "comment", "--comment", "cappuccino:1", "-j", "ACCEPT"],
        ["FORWARD", "-i", "cappuccino10", "-m", "comment", "--comment", "cappuccino:10", "-j", "ACCEPT"],
    ]
    assert uplink.orphans(LISTED, lambda slot: True) == []


def test_a_kubeconfig_speaks_as_its_user_and_is_private(tmp_path: Path) -> None:
    where = plane(tmp_path)
    path = credentials.kubeconfig(where.credentials, tmp_path / "kubeconfig", url=where.url, user="system:coredns")
    content = yaml.safe_load(path.read_text())
    assert content["users"] == [{"name": "system:coredns", "user": {"token": "other"}}]
    assert content["clusters"][0]["cluster"]["server"] == "https://10.245.0.2:6443"
    assert path.stat().st_mode & 0o077 == 0


def test_every_file_of_the_node_is_written_and_parses(tmp_path: Path) -> None:
    configuration.write(plane(tmp_path), slot=3)
    kubelet = yaml.safe_load((tmp_path / "configuration/kubelet.yaml").read_text())
    objects = list(yaml.safe_load_all((tmp_path / "configuration/objects.yaml").read_text()))
    assert kubelet["cgroupRoot"] == "/cappuccino-3"
    service = next(one for one in objects if one["kind"] == "Service")
    assert [service["spec"]["clusterIP"]] == kubelet["clusterDNS"]
    volumes = [one["spec"]["hostPath"]["path"] for one in objects if one["kind"] == "PersistentVolume"]
    assert len(set(volumes)) == configuration.VOLUMES
    assert all(Path(path).stat().st_mode & 0o777 == 0o777 for path in volumes)


def test_name_servers_on_loopback_are_not_passed_into_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\nsearch example.com\n")
    real.write_text("nameserver 192.0.2.1\nnameserver ::1\n")
    monkeypatch.setattr(configuration, "RESOLV_CONFS", (stub, real))
    assert configuration.resolv_conf() == "nameserver 192.0.2.1\n"


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ({"system": "Darwin"}, "needs Linux, this is Darwin"),
        ({"user": 1000}, "needs root, this is user 1000"),
        ({"capabilities": 0xFFFFFFFFFF & ~(1 << 12)}, "needs CAP_NET_ADMIN"),
    ],
)
def test_what_lacks_is_named(lacking: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine: dict[str, object] = {"system": "Linux", "user": 0, "capabilities": 0xFFFFFFFFFF, **lacking}
    monkeypatch.setattr(platform, "system", lambda: machine["system"])
    monkeypatch.setattr(os, "geteuid", lambda: machine["user"])
    monkeypatch.setattr(requirements, "_status", lambda field: f"{machine['capabilities']:x}")
    with pytest.raises(UserError, match=message):
        requirements.check_rights()


def test_packages_that_lack_are_named_where_there_is_no_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"runc", "iptables", "conntrack", "ip", "mount", "nsenter", "setsid", "unshare"}
    monkeypatch.setattr(requirements.shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(configuration, "cni_folder", lambda: None)
    with pytest.raises(UserError, match="needs containerd, containernetworking-plugins"):
        requirements._install()
