"""The guard of `helm uninstall`: exit code 1 while Traders exist, which only a running operator can end.

python -m cappuccino.entrypoints.uninstall [NAMESPACE...]       none: all namespaces
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from cappuccino.adapters.kubernetes.client import OURS, Client
from cappuccino.core.errors import CappuccinoError, NotFound

SHOWN = 20


async def traders(client: Client, namespaces: Sequence[str]) -> list[str]:
    """namespace/name of each; none where the kind is not even known."""
    found = []
    for namespace in namespaces or (None,):
        try:
            documents = await client.all(OURS["Trader"], namespace=namespace)
        except NotFound:
            continue
        found += [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in documents]
    return sorted(found)


def refusal(found: Sequence[str]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"refused: {len(found)} Traders exist, and nothing would mind their accounts: {', '.join(found[:SHOWN])}{more}\n"
        f"delete their Deployments and them, wait until they are gone, and uninstall again:\n"
        f"  kubectl delete mdep,mtd --all --namespace {found[0].partition('/')[0]}\n"
        f"to keep the release instead: helm rollback RELEASE REVISION, with the last revision of `helm history RELEASE`"
    )


async def _traders(namespaces: Sequence[str]) -> list[str]:
    async with await Client.connect() as client:
        return await traders(client, namespaces)


def main(argv: Sequence[str]) -> int:
    try:
        found = asyncio.run(_traders(argv))
    except CappuccinoError as error:
        sys.stderr.write(f"refused: it is not known whether Traders exist: {error}\n")
        return 1
    if found:
        sys.stderr.write(f"{refusal(found)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
