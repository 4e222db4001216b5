"""What every kind shares: metadata, conditions, and how a kind describes itself to Kubernetes."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cappuccino.api.structural import at, structural
from cappuccino.core.errors import InvalidInput
from cappuccino.core.identifiers import CHILD_NAME_MAX, NAME_MAX

GROUP = "cappuccino.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

# Of the wire types; beside the remedies below, so that an error can say what to write instead.
SYMBOL_PATTERN = r"^[A-Z0-9]{1,20}/[A-Z]{3,5}$"
TIMESTAMP_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"
DIGEST_PATTERN = r"^[0-9a-f]{64}$"
URL_PATTERN = r"^https?://"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
QUEUE_PATTERN = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
Name = Field(
    min_length=1,
    max_length=NAME_MAX,
    pattern=NAME_PATTERN,
    description=f"Name of the object: lower case letters, digits and dashes, at most {NAME_MAX}.",
)


class Model(BaseModel):
    """Frozen, camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """The wire form: camelCase, absent rather than null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


Rule = tuple[str, str]  # CEL, and what is said when it is false; {CEL} in that text stands for its value


def written(rules: Iterable[Rule]) -> list[dict[str, str]]:
    """`rules` as x-kubernetes-validations has them."""
    return [
        {"rule": rule, "message": said} if "{" not in said else {"rule": rule, "messageExpression": _said(said)}
        for rule, said in rules
    ]


def _said(text: str) -> str:
    """CEL that makes `text`: "low {self.low} is negative" becomes "low %s is negative".format([self.low])."""
    values = re.findall(r"\{(.*?)\}", text)
    form = re.sub(r"\{.*?\}", "%s", text.replace("%", "%%"))
    return f"{json.dumps(form, ensure_ascii=False)}.format([{', '.join(values)}])"


def validations(*rules: Rule) -> ConfigDict:
    """Configuration of a model that carries rules over `self` into its schema; the model checks the same in Python."""
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": [{**rule} for rule in written(rules)]})


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

    name: str = Field(min_length=1, max_length=CHILD_NAME_MAX, pattern=NAME_PATTERN)
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

    type: str = Field(description="What is said: Ready, Reconciling, Stalled, Complete, Failed, Halted and so on.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(description="One word for programs.")
    message: str = Field(default="", description="One sentence for a person.")
    observed_generation: int = Field(default=0, description="The metadata.generation that this was said of.")
    last_transition_time: str = Field(default="", description="When status last changed, RFC 3339, UTC.")


class Status(Model):
    """Base of every status. Only the operator writes it."""

    observed_generation: int = Field(default=0, description="The last metadata.generation that was acted on.")
    conditions: tuple[Condition, ...] = Field(default=(), description="State of the object, one condition per type.")


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
    rules: tuple[Rule, ...] = ()  # over `self` = the spec
    immutable: tuple[str, ...] = ()  # spec fields (wire names) that never change; ("*",): the whole spec
    pinned: tuple[str, ...] = ()  # spec fields that no longer change once status.snapshot is set
    name_max: int = NAME_MAX  # longer for what only controllers name
    growing: tuple[str, ...] = ()  # numbers, as dotted paths of the spec, that may grow and not shrink
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
        """`document` as this kind, read as strictly as Kubernetes reads it: "4" is not a number.

        Raises:
            InvalidInput: one line that names the field, its value and what it may be.
        """
        try:
            parsed = cls.model_validate_json(json.dumps(document, default=str), strict=True)
        except ValidationError as error:
            raise InvalidInput(explain(error, cls, source=source)) from error
        if len(parsed.name) > cls.info.name_max:
            most = cls.info.name_max
            raise InvalidInput(
                f"{source}: metadata.name: {parsed.name} has {len(parsed.name)} characters, at most {most} fit: shorten it"
            )
        return parsed


# What to write instead, by the pattern that refused it.
REMEDIES: dict[str, str] = {
    NAME_PATTERN: "use lower case letters, digits and dashes, as in my-study",
    SYMBOL_PATTERN: "write BASE/QUOTE, as BTC/USD",
    TIMESTAMP_PATTERN: "write it in UTC, as 2024-01-01T00:00:00Z",
    DIGEST_PATTERN: "a digest has 64 characters 0-9 and a-f; `cappuccino get trials -o wide` lists them",
    URL_PATTERN: "write http://host:port",
    QUEUE_PATTERN: "use lower case letters, digits and dashes, as in my-queue",
    QUANTITY_PATTERN: "write a Kubernetes quantity, as 500m, 2 or 4Gi",
}


def explain(error: ValidationError, model: type[BaseModel], *, source: str) -> str:
    """Every defect of a manifest in one line: source: field: what is wrong (value); remedy."""
    parts = []
    for item in error.errors(include_url=False):
        path, value, kind = item["loc"], item.get("input"), item["type"]
        where = dotted(path) or "(document)"
        shown = "" if isinstance(value, dict | list) else f" (got {json.dumps(value, default=str)})"
        if kind == "extra_forbidden":
            parts.append(f"{where}: unknown field; {_nearest(model, path)}")
        elif kind == "missing":
            parts.append(f"{where}: required and absent; add it")
        elif kind == "string_pattern_mismatch":
            pattern = item["ctx"]["pattern"]
            parts.append(f"{where}: {REMEDIES.get(pattern, f'must match {pattern}')}{shown}")
        elif kind == "string_type" and isinstance(value, int | float):
            parts.append(f'{where}: must be text, put it in quotes: "{json.dumps(value)}"{shown}')
        elif kind in ("too_short", "too_long"):
            bound, limit = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
            parts.append(f"{where}: has {item['ctx']['actual_length']} entries, needs {bound} {item['ctx'][limit]}")
        else:
            said = item["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("valid array", "list")
            parts.append(f"{where}: {said}{shown}")
    return f"{source}: " + "; ".join(parts)


def dotted(path: Sequence[str | int]) -> str:
    """spec.symbols[0]: as kubectl writes it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _nearest(model: type[BaseModel], path: Sequence[str | int]) -> str:
    parent = at(structural(model), path[:-1]) or {}
    close = difflib.get_close_matches(str(path[-1]), parent.get("properties", {}), n=1)
    return f"did you mean {close[0]}?" if close else "remove it or mind its spelling"
