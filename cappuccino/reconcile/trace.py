"""Which trace an object belongs to: its Study's, from the search to the order.

What a Deployment makes carries it as an annotation, a Trial names its Study by uid, a Deployment by name. What belongs to no
Study is a trace of its own.
"""

from __future__ import annotations

from cappuccino.controllers.trader import TRACEPARENT_ANNOTATION
from cappuccino.core.identifiers import traceparent
from cappuccino.reconcile.ports import Document, Objects


async def traceparent_of(document: Document, objects: Objects) -> str:
    metadata, spec = document["metadata"], document.get("spec") or {}
    if told := (metadata.get("annotations") or {}).get(TRACEPARENT_ANNOTATION):
        return str(told)
    if uid := spec.get("studyUid"):
        return traceparent(uid)
    if name := (spec.get("studyRef") or {}).get("name"):
        for study in await objects.index("Study", namespace=metadata.get("namespace")):
            if study.key.name == name:
                return traceparent(study.uid)
    return traceparent(metadata["uid"])
