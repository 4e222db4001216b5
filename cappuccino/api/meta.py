"""What every kind shares: metadata, conditions, and how a kind describes itself to Kubernetes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import NAME_MAX

GROUP = "cappuccino.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Name = Field(min_length=1, max_length=NAME_MAX, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")


class Model(BaseModel):
    """Frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """The wire form: camelCase, absent rather than null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Model):
    api_version: str = API_VERSION
    kind: str
    name: str
    uid: str
    controller: bool = True
    block_owner_deletion: bool = True


class ObjectMeta(Model):
    """The part of Kubernetes' ObjectMeta that we read and write; the rest is ignored, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    name: str = Name
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Condition(Model):
    """As in Kubernetes: one condition per type; `message` is one sentence for a person."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = ""


class Status(Model):
    """Base of every status. Only the operator writes it."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class Reference(Model):
    """An object of ours in the same namespace, by name."""

    name: str = Name


@dataclass(frozen=True, kw_only=True)
class KindInfo:
    """What a kind says of itself in its CRD."""

    plural: str
    short_names: tuple[str, ...]
    description: str
    columns: tuple[tuple[str, str, str], ...] = ()  # (name, type, JSON path)
    rules: tuple[tuple[str, str], ...] = ()  # (CEL over `self` = the spec, message)
    scale: tuple[str, str] | None = None  # (spec path, status path)
    wide: tuple[tuple[str, str, str], ...] = field(default=())  # columns of `-o wide`


class Resource(Model):
    """One object. Subclasses fix `kind`, `spec` and `status`."""

    info: ClassVar[KindInfo]

    api_version: Literal["cappuccino.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: str
    metadata: ObjectMeta
    spec: Any
    status: Any = None

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def uid(self) -> str:
        return self.metadata.uid

    def condition(self, kind: str) -> Condition | None:
        conditions = self.status.conditions if self.status else ()
        return next((c for c in conditions if c.type == kind), None)

    @classmethod
    def parse(cls, document: dict[str, Any], *, source: str = "manifest") -> Self:
        """`document` as this kind.

        Raises:
            InvalidInput: one line that names the field, its value and what it may be.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidInput(explain(error, source=source)) from error


def explain(error: ValidationError, *, source: str) -> str:
    """Every defect of a manifest in one line: source: field: what is wrong (value)."""
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(p) for p in item["loc"]) or "(document)"
        value = item.get("input")
        if item["type"] == "extra_forbidden":
            parts.append(f"{where}: unknown field; remove it or mind its spelling")
        elif item["type"] == "missing":
            parts.append(f"{where}: required and absent; add it")
        else:
            shown = "" if isinstance(value, dict | list) else f" (got {value!r})"
            parts.append(f"{where}: {item['msg']}{shown}")
    return f"{source}: " + "; ".join(parts)
