"""Where the workloads of test_workloads.py run: processes of this machine, or pods of a whole cluster."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cappuccino.adapters.kubernetes.client import JOB, POD, STATEFULSET, ApiResource, Client
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.controllers.decision import Document, Key
from cappuccino.reconcile.ports import Workloads
from hack.cluster import build

PROGRAM = Path(__file__).with_name("workload_program.py")
MOUNTED = "/artifacts"
_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_POD_SECURITY = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


class Folder(Protocol):
    """What the programs of one test write; `path` is where they find it."""

    path: str

    async def read(self, name: str) -> str | None:
        """None when there is no such file."""
        ...

    async def remove(self, name: str) -> None: ...

    async def quiet(self) -> bool:
        """No program holds the folder's lock."""
        ...


@dataclass
class Ground:
    workloads: Workloads
    folder: Folder
    key: Key
    patience_seconds: float
    says_after_success: bool  # the last words of a program that succeeded are kept

    async def kill(self) -> None:
        """End the running program of the test without a word."""
        raise NotImplementedError


class LocalFolder:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._path = path

    async def read(self, name: str) -> str | None:
        path = self._path / name
        return path.read_text() if path.exists() else None

    async def remove(self, name: str) -> None:
        (self._path / name).unlink()

    async def quiet(self) -> bool:
        with (self._path / "alone").open("w") as alone:
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


class LocalGround(Ground):
    async def kill(self) -> None:
        begun = await self.folder.read("begun") or ""
        os.kill(int(begun.split()[-1]), signal.SIGKILL)


# --- a whole cluster --------------------------------------------------------------------------------


class PodFolder:
    """A folder of the claim that all pods mount, looked at from inside the pod `reader`."""

    def __init__(self, cluster: Cluster) -> None:
        self.path = f"{MOUNTED}/{uuid.uuid4().hex[:8]}"
        self._cluster = cluster

    async def made(self) -> PodFolder:
        await self._python(f"import os; os.mkdir({self.path!r})")
        return self

    async def read(self, name: str) -> str | None:
        path = f"{self.path}/{name}"
        text = f"import json, os; print(json.dumps(open({path!r}).read() if os.path.exists({path!r}) else None))"
        found: str | None = json.loads(await self._python(text))
        return found

    async def remove(self, name: str) -> None:
        await self._python(f"import os; os.remove({f'{self.path}/{name}'!r})")

    async def quiet(self) -> bool:
        text = (
            f"import fcntl\ntry: fcntl.flock(open({f'{self.path}/alone'!r}, 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
            "except BlockingIOError: print('held')"
        )
        return "held" not in await self._python(text)

    async def _python(self, text: str) -> str:
        return await asyncio.to_thread(self._cluster.kubectl, "exec", "reader", "--", "python", "-c", text)


@dataclass(frozen=True)
class Cluster:
    """One namespace that admits restricted pods only, with a volume, the program as a ConfigMap, and the pod `reader`."""

    kubeconfig: str
    image: str
    namespace: str

    @classmethod
    def made(cls, kubeconfig: str, image: str) -> Cluster:
        cluster = cls(kubeconfig, image, f"contract-{uuid.uuid4().hex[:8]}")
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": restricted}})
        mount = {"name": "folder", "mountPath": MOUNTED}
        reader = {
            "containers": [
                {
                    "name": "reader",
                    "image": image,
                    "command": ["python", "-c", "import time; time.sleep(1e6)"],
                    "volumeMounts": [mount],
                    "securityContext": _RESTRICTED,
                }
            ],
            "volumes": [{"name": "folder", "persistentVolumeClaim": {"claimName": "folder"}}],
            "securityContext": _POD_SECURITY,
            "terminationGracePeriodSeconds": 0,
        }
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "folder"}, "spec": claim})
        program = {"workload_program.py": PROGRAM.read_text()}
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"}, "data": program})
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": reader})
        cluster.kubectl("wait", "--for=condition=Ready", "pod/reader", "--timeout=180s")
        return cluster

    def apply(self, document: Document) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(document, file)
            file.flush()
            self.kubectl("apply", "-f", file.name)

    def kubectl(self, *arguments: str) -> str:
        line = [build.kubectl(), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", *arguments]
        done = subprocess.run(line, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def removed(self) -> None:
        """The namespace; and its volume, where that is kept, is given back."""
        self.kubectl("delete", "namespace", self.namespace, "--timeout=120s")
        for volume in json.loads(self.kubectl("get", "persistentvolumes", "--output=json"))["items"]:
            if volume["spec"].get("claimRef", {}).get("namespace") == self.namespace:
                self.kubectl("patch", "persistentvolume", volume["metadata"]["name"], "--patch", '{"spec": {"claimRef": null}}')

    def settings(self) -> PodSettings:
        return PodSettings.model_validate(
            {
                "images": {"train": self.image, "trader": self.image},
                "database": {"secret": "none"},
                "artifacts": {"url": f"file://{MOUNTED}", "claim": "folder"},
                "deletionGraceSeconds": 30,
            }
        )


class ProgramClient(Client):
    """Makes workloads whose container runs the tests' program instead of the image's."""

    async def create(self, resource: ApiResource, document: Document) -> Document:
        if resource in (JOB, STATEFULSET):
            spec = document["spec"]["template"]["spec"]
            container = spec["containers"][0]
            container["command"] = ["python", "/program/workload_program.py"]
            container["volumeMounts"].append({"name": "program", "mountPath": "/program"})
            spec["volumes"].append({"name": "program", "configMap": {"name": "program"}})
        return await super().create(resource, document)


class ClusterGround(Ground):
    client: Client

    async def kill(self) -> None:
        pods = await self.client.all(POD, namespace=self.key.namespace, labels="app.kubernetes.io/managed-by=cappuccino")
        for pod in pods:
            await self.client.delete(POD, self.key.namespace, pod["metadata"]["name"], grace_seconds=0)


def of_environment() -> tuple[str, str] | None:
    """The kubeconfig and the image (Python and this package) of the cluster to test on, where there is one."""
    kubeconfig = os.environ.get("CAPPUCCINO_TEST_CLUSTER")
    return (kubeconfig, os.environ["CAPPUCCINO_TEST_IMAGE"]) if kubeconfig else None
