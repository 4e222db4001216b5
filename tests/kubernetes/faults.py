"""What is broken on purpose, each fault by name, with a search or traders under way; test_faults.py checks what holds after.

A fault breaks and mends; it asserts only what is its own (a resumption, a reason shown).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from cappuccino.api.manifests import load
from hack.cluster.namespaces import find

from .scene import FOLDER, ROOT, Scene, eventually

OUTAGE_SECONDS = 30.0
Fault = Callable[[Scene, str], None]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


def search(scene: Scene, name: str, *, trials: int = 6, example: str = "rules", **template: Any) -> None:
    """Apply a Dataset and a Study called `name`, from an example."""
    for document, _ in load(ROOT / "examples" / example):
        if document["kind"] == "Deployment":
            continue
        spec, metadata = deepcopy(document["spec"]), {"name": document["metadata"]["name"]}
        if document["kind"] == "Study":
            metadata["name"] = name
            spec |= {"budget": {"trials": trials}, "pruner": {"type": "none"}}
            spec["template"] |= {"pod": {"requests": {"cpu": "100m", "memory": "300Mi"}}, **template}
        scene.apply({**document, "metadata": metadata, "spec": spec})


def searching(scene: Scene, name: str, *, done: int) -> None:
    def complete() -> int:
        return int((scene.get("study", name).get("status", {}).get("trials") or {}).get("complete", 0))

    eventually(f"{done} trials of {name}", lambda: complete() >= done)


@fault
def operator_killed(scene: Scene, name: str) -> None:
    search(scene, name)
    for _ in range(3):
        time.sleep(random.uniform(0.5, 6))
        scene.kill("kopf", "main.py")


@fault
def two_operators(scene: Scene, name: str) -> None:
    """A second replica stands by; when the first is frozen it takes over, and stays it when the first wakes."""
    scene.kubectl("scale", f"deployment/{scene.release}-operator", "--replicas=2")
    scene.kubectl("rollout", "status", f"deployment/{scene.release}-operator", "--timeout=120s")
    search(scene, name)
    searching(scene, name, done=1)
    lease = scene.list("leases")[0]
    holder = lease["spec"]["holderIdentity"]
    frozen = next(pid for pid in scene.processes("kopf", "main.py") if hostname(pid) in holder)
    os.kill(frozen, signal.SIGSTOP)
    try:
        eventually("another leader", lambda: scene.list("leases")[0]["spec"]["holderIdentity"] != holder)
        searching(scene, name, done=3)
    finally:
        os.kill(frozen, signal.SIGCONT)
    second = scene.list("leases")[0]["spec"]["holderIdentity"]
    searching(scene, name, done=5)
    assert scene.list("leases")[0]["spec"]["holderIdentity"] == second
    scene.kubectl("scale", f"deployment/{scene.release}-operator", "--replicas=1")


def hostname(pid: int) -> str:
    """Of the container that the process is in: its pod's name."""
    with open(f"/proc/{pid}/environ", "rb") as environment:
        entries = dict(line.partition(b"=")[::2] for line in environment.read().split(b"\0"))
    return entries[b"HOSTNAME"].decode()


@fault
def trainer_killed(scene: Scene, name: str) -> None:
    """It resumes from its checkpoint, and no trial has failed."""
    search(scene, name, trials=1, example="quickstart", checkpointSeconds=2)
    checkpoints = FOLDER / "volumes" / "artifacts" / "checkpoints"
    uid = scene.get("study", name)["metadata"]["uid"]
    eventually("a checkpoint", lambda: any((checkpoints / uid).rglob("*")) if (checkpoints / uid).exists() else False)
    scene.kill("entrypoints.worker", "train", uid)
    eventually("a second attempt", lambda: scene.get("trial", f"{name}-00000")["status"].get("attempts") == 2)


@fault
def pod_evicted(scene: Scene, name: str) -> None:
    search(scene, name, trials=2, example="quickstart")
    eventually("a trainer", lambda: scene.processes("entrypoints.worker", "train"))
    pod = next(pod for pod in scene.pods("train") if pod["metadata"]["name"].startswith(name))
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}})
    path = f"/api/v1/namespaces/{scene.namespace}/pods/{pod['metadata']['name']}/eviction"
    scene.kubectl("create", "--raw", path, "-f", "-", text=eviction)


@fault
def trader_killed(scene: Scene, name: str) -> None:
    search(scene, name, trials=1)
    for _ in range(6):
        time.sleep(random.uniform(0.5, 4))
        scene.kill("entrypoints.worker", "trade")


@fault
def database_stopped(scene: Scene, name: str) -> None:
    search(scene, name)
    searching(scene, name, done=1)
    database = f"statefulset/{scene.release}-database"
    scene.kubectl("scale", database, "--replicas=0")
    time.sleep(OUTAGE_SECONDS)
    scene.kubectl("scale", database, "--replicas=1")
    scene.kubectl("rollout", "status", database, "--timeout=120s")


@fault
def api_server_stopped(scene: Scene, name: str) -> None:
    search(scene, name)
    searching(scene, name, done=1)
    scene.part("stop", "apiserver")
    time.sleep(OUTAGE_SECONDS)
    scene.part("start", "apiserver")


@fault
def node_lost(scene: Scene, name: str) -> None:
    """The kubelet goes silent: the node is NotReady, pods are marked for eviction while their containers still run."""
    search(scene, name)
    searching(scene, name, done=1)
    scene.part("stop", "kubelet")
    eventually("a node that is not ready", lambda: "NotReady" in scene.kubectl("get", "nodes"), within=120)
    time.sleep(OUTAGE_SECONDS)
    scene.part("start", "kubelet")
    eventually("a node that is ready", lambda: "NotReady" not in scene.kubectl("get", "nodes"), within=120)


@fault
def disk_full(scene: Scene, name: str) -> None:
    """The checkpoints' disk is full: the Trial says so and waits; with room again, it completes."""
    folder = FOLDER / "volumes" / "artifacts" / "checkpoints"
    folder.mkdir(exist_ok=True)
    node = find(ROOT / "build" / "cluster")
    assert node is not None, "the node has gone"
    node.run("mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "tmpfs", folder)
    try:
        search(scene, name, trials=1, example="quickstart", checkpointSeconds=1)
        eventually("a reason", lambda: "space" in str(scene.get("trial", f"{name}-00000").get("status")), within=180)
    finally:
        node.run("umount", "--lazy", folder)


@fault
def image_missing(scene: Scene, name: str) -> None:
    """The Trial says that its image cannot be had; with the image named right, its Job is made anew and runs."""
    scene.install("--set", "images.train=no-such-image")
    search(scene, name, trials=1)
    trial = f"{name}-00000"
    try:
        eventually("a reason", lambda: "no-such-image" in str(scene.get("trial", trial).get("status")))
    finally:
        scene.install()


@fault
def watches_dropped(scene: Scene, name: str) -> None:
    """The operator sleeps while much changes and the API server starts anew: where its watches stood is gone (410)."""
    search(scene, name)
    searching(scene, name, done=1)
    (pid,) = scene.processes("kopf", "main.py")
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(200):
            scene.kubectl("annotate", "study", name, f"example.com/noise={number}", "--overwrite")
        scene.part("stop", "apiserver")
        scene.part("start", "apiserver")
    finally:
        os.kill(pid, signal.SIGCONT)


DEFAULT = ("operator-killed", "trainer-killed", "trader-killed")
# Those that a trainer sees: its Job may start it again. In all others it runs once.
SEEN_BY_TRAINERS = ("trainer-killed", "pod-evicted", "database-stopped", "node-lost", "disk-full")
