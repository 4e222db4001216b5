"""Kubernetes behind the ports `Objects`, `Workloads` and `Events`, on the official asyncio client with plain documents."""
