"""A Kubernetes cluster for the command line: by a kubeconfig and a person's own rights, or by those of the pod that it runs in.

Nothing here reaches the record: a person's wishes are annotations, which the operator acts on and audits. Only inside the
operator's pod (`--in-cluster`) is the record at hand as well.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio.client import CoreV1Api
from kubernetes.aio.config.kube_config import KubeConfigMerger

from cappuccino.adapters.kubernetes.answers import error_of, status_of
from cappuccino.adapters.kubernetes.client import EVENT, POD, Client
from cappuccino.adapters.kubernetes.index import ClusterIndex
from cappuccino.adapters.kubernetes.objects import KubernetesObjects
from cappuccino.core.errors import IntegrityError, InvalidInput, InvariantViolation, NotFound, RetryLater
from cappuccino.entrypoints.cli.target import Target
from cappuccino.entrypoints.settings import DATABASE_URL, required
from cappuccino.reconcile.ports import Document, Key, Objects, Record

KUBECONFIG = "KUBECONFIG"
OPERATOR_LABELS, OPERATOR_CONTAINER = "app.kubernetes.io/name=cappuccino,app.kubernetes.io/component=operator", "operator"
_FOLLOWED_SECONDS = 365 * 86400.0
_BY_EXIT_CODE = {kind.exit_code: kind for kind in (InvalidInput, IntegrityError, InvariantViolation, RetryLater)}


@dataclass(frozen=True, kw_only=True)
class Context:
    """One context of a kubeconfig, or the pod's own service account when `kubeconfig` is None."""

    kubeconfig: str | None
    name: str
    namespace: str


@dataclass(frozen=True, kw_only=True)
class Remote:
    namespace: str
    objects: Objects
    record: Record | None
    client: Client

    async def events(self, key: Key) -> Sequence[Mapping[str, Any]]:
        fields = f"involvedObject.kind={key.kind},involvedObject.name={key.name}"
        found = await self.client.all(EVENT, namespace=key.namespace, fields=fields)
        rows = [
            {
                "last_at": event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"],
                "type": event.get("type", "Normal"),
                "reason": event.get("reason", ""),
                "message": event.get("message", ""),
                "count": event.get("count") or 1,
            }
            for event in found
        ]
        return sorted(rows, key=lambda row: (row["last_at"], row["reason"]))

    async def user(self) -> str:
        return await self.client.user()

    async def pods(self, labels: str) -> list[Document]:
        """Oldest first."""
        found = await self.client.all(POD, namespace=self.namespace, labels=labels)
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    async def log(self, pod: str, *, container: str | None, tail: int, follow: bool) -> AsyncIterator[bytes]:
        """What a container wrote, piece by piece."""
        given: dict[str, Any] = {"follow": follow, "_request_timeout": _FOLLOWED_SECONDS if follow else None}
        given |= {"container": container} if container else {}
        given |= {"tail_lines": tail} if tail >= 0 else {}
        what = f"log of pod/{pod}"
        try:
            core = CoreV1Api(self.client.api)
            answer = await core.read_namespaced_pod_log_without_preload_content(pod, self.namespace, **given)
            if answer.status >= 400:
                raise error_of(answer.status, status_of(await answer.read()), what=what)
            async for chunk in answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RetryLater(f"{what}: the API server does not answer ({type(error).__name__}: {error})") from error


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Remote]:
    """Raises InvalidInput without such a kubeconfig or context, RetryLater when the cluster does not answer."""
    context = Context(kubeconfig=None, name="", namespace="default") if target.in_cluster else chosen(target)
    async with AsyncExitStack() as stack:
        client = await Client.connect(kubeconfig=context.kubeconfig, context=context.name or None)
        await stack.enter_async_context(client)
        record: Record | None = None
        if target.in_cluster:
            from cappuccino.entrypoints.wiring import open_record

            record = await stack.enter_async_context(open_record(required(DATABASE_URL), "operator"))
        try:
            yield Remote(
                namespace=target.namespace or context.namespace,
                objects=KubernetesObjects(client, ClusterIndex(client)),
                record=record,
                client=client,
            )
        except RetryLater as error:
            raise RetryLater(f"context {context.name}: {error}", after_seconds=error.after_seconds) from error


def chosen(target: Target) -> Context:
    """The context that the options name, else the kubeconfig's current one.

    Raises:
        InvalidInput: no kubeconfig, or no such context in it; says which there are.
    """
    paths = str(target.kubeconfig) if target.kubeconfig else os.environ.get(KUBECONFIG) or str(Path.home() / ".kube" / "config")
    if not any(Path(path).is_file() for path in paths.split(os.pathsep)):
        raise InvalidInput(f"no kubeconfig at {paths}: name one with --kubeconfig, or set {KUBECONFIG}")
    try:
        merged = KubeConfigMerger(paths).config.value  # type: ignore[no-untyped-call]
        contexts = {entry.value["name"]: entry.value["context"] for entry in merged["contexts"]}
    except (yaml.YAMLError, TypeError, AttributeError, KeyError) as error:
        raise InvalidInput(f"{paths} is no kubeconfig ({type(error).__name__}): mend it, or name another") from error
    name = target.context or merged.get("current-context") or ""
    if name not in contexts:
        what = f"context {name!r} is not in {paths}" if name else f"{paths} has no current context"
        raise InvalidInput(f"{what}: choose one with --context ({', '.join(contexts) or 'it has none'})")
    return Context(kubeconfig=paths, name=name, namespace=contexts[name].get("namespace") or "default")


def in_the_operator(target: Target, namespace: str, arguments: Sequence[str]) -> str:
    """What this program prints when it is run with `arguments` inside the operator's pod, where the record is at hand.

    Raises:
        NotFound: no operator in `namespace`, or no kubectl on this machine.
        CappuccinoError: it failed there, with the exit code that it had there, or it may not be run there.
    """
    return asyncio.run(_executed(replace(target, namespace=namespace), arguments))


async def _executed(target: Target, arguments: Sequence[str]) -> str:
    async with connected(target) as cluster:
        running = [pod for pod in await cluster.pods(OPERATOR_LABELS) if pod["status"].get("phase") == "Running"]
    if not running:
        raise NotFound(f"no operator runs in namespace {target.namespace}: name its namespace with --operator-namespace")
    context, pod = chosen(target), running[-1]["metadata"]["name"]
    into = [f"--context={context.name}", f"--namespace={target.namespace}", f"--container={OPERATOR_CONTAINER}", pod]
    program = ["python", "-m", "cappuccino.entrypoints.cli", *arguments, "--in-cluster"]
    try:
        process = await asyncio.create_subprocess_exec(
            *("kubectl", "exec", *into, "--", *program),
            env={**os.environ, KUBECONFIG: str(context.kubeconfig)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise NotFound("kubectl is not on the PATH: it is what runs this inside the operator's pod; install it") from error
    said, wrong = await process.communicate()
    if process.returncode:
        lines = wrong.decode(errors="replace").splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
        kind = _BY_EXIT_CODE.get(process.returncode, InvalidInput)
        raise kind(f"inside pod/{pod}: {' '.join(told) or f'exit code {process.returncode}'}")
    return said.decode().removesuffix("\n")
