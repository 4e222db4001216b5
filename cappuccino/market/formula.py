"""Formulas over bars, evaluated two ways: over whole columns, and one bar at a time.

A formula is a tree of nodes: a column of the bars, a TA-Lib function, a lag, arithmetic. Batch and stream
walk the same tree, so that a feature cannot be defined twice.

Invariants:
- From the same first bar both ways give the same bits: TA-Lib promises it for its handles, and `+ - * /`,
  lags and comparisons are exact in IEEE doubles. Logarithms go through TA-Lib too, because NumPy's
  vectorised ones round differently with the length of the array.
- A node sees nothing after its bar.
- NaN comes only before a node has enough bars. Division by zero gives 0.

`warmup` is the number of bars, the present one included, after which the value no longer depends on where
the series began, to 1e-6: windows forget at once, exponential averages are counted until their first bars
weigh less than `SETTLED`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import talib
from talib import abstract, stream

SETTLED = 1e-8
_InsufficientHistory: type[Exception] = vars(talib)["InsufficientHistory"]

Value: TypeAlias = Any  # one float or a tuple of them; in batch arrays [T]
Step: TypeAlias = Callable[..., Value]


def settling(decay: float) -> int:
    """Bars until a weight that shrinks by `decay` a bar is below `SETTLED`."""
    return math.ceil(math.log(SETTLED) / math.log(decay)) if decay > 0 else 0


@dataclass(frozen=True)
class Node:
    """Base of all nodes. Equal trees are one node, evaluated once."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    @property
    def memory(self) -> int:
        """Bars before the present one that this node itself looks back on."""
        return 0

    def batch(self, *values: Value) -> Value:
        raise NotImplementedError

    def step(self) -> Step:
        """A fresh function from the inputs' values at a bar to this node's value at it."""
        return self.batch

    def __add__(self, other: Node | float) -> Node:
        return Arithmetic("+", self, _node(other))

    def __sub__(self, other: Node | float) -> Node:
        return Arithmetic("-", self, _node(other))

    def __mul__(self, other: Node | float) -> Node:
        return Arithmetic("*", self, _node(other))

    def __truediv__(self, other: Node | float) -> Node:
        return Arithmetic("/", self, _node(other))


@dataclass(frozen=True)
class Column(Node):
    """A column of the bars; its values come from outside."""

    name: str


@dataclass(frozen=True)
class Constant(Node):
    value: float

    def batch(self, *_: Value) -> Value:
        return self.value


def _node(value: Node | float) -> Node:
    return value if isinstance(value, Node) else Constant(float(value))


def _divide_columns(a: Value, b: Value) -> Value:
    zero = np.equal(b, 0.0)
    return np.where(zero, 0.0, a / np.where(zero, 1.0, b))


_COLUMNWISE: Mapping[str, Step] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide_columns,
}
_BAR_BY_BAR: Mapping[str, Step] = {**_COLUMNWISE, "/": lambda a, b: 0.0 if b == 0.0 else a / b}


@dataclass(frozen=True)
class Arithmetic(Node):
    operator: str
    left: Node
    right: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def batch(self, *values: Value) -> Value:
        return _COLUMNWISE[self.operator](*values)

    def step(self) -> Step:
        return _BAR_BY_BAR[self.operator]


@dataclass(frozen=True)
class Where(Node):
    """`value` where `span` is above 0, else 0: indicators that divide by a range that a flat market does not have."""

    span: Node
    value: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.span, self.value)

    def batch(self, *values: Value) -> Value:
        span, value = values
        return np.where(np.less_equal(span, 0.0), 0.0, value)

    def step(self) -> Step:
        return lambda span, value: 0.0 if span <= 0.0 else value


@dataclass(frozen=True)
class Lag(Node):
    """The value `bars` ago."""

    value: Node
    bars: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.value,)

    @property
    def memory(self) -> int:
        return self.bars

    def batch(self, *values: Value) -> Value:
        (value,) = values
        lagged = np.full_like(value, np.nan)
        if len(value) > self.bars:
            lagged[self.bars :] = value[: len(value) - self.bars]
        return lagged

    def step(self) -> Step:
        past: deque[float] = deque([math.nan] * self.bars, maxlen=self.bars)

        def advance(value: float) -> float:
            oldest = past[0]
            past.append(value)
            return oldest

        return advance


@dataclass(frozen=True)
class Ta(Node):
    """A TA-Lib function of `arguments`; `looks_back` is its memory. Several outputs come as a tuple."""

    function: str
    arguments: tuple[Node, ...]
    parameters: tuple[tuple[str, int | float], ...]
    looks_back: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.arguments

    @property
    def memory(self) -> int:
        return self.looks_back

    def batch(self, *values: Value) -> Value:
        columns = [np.ascontiguousarray(value, dtype=np.float64) for value in values]
        return getattr(talib, self.function)(*columns, **dict(self.parameters))

    def step(self) -> Step:
        parameters = dict(self.parameters)
        described: Any = vars(abstract)["Function"](self.function)
        described.parameters = parameters
        outputs, enough = len(described.output_names), described.lookback + 1
        nothing = math.nan if outputs == 1 else (math.nan,) * outputs
        open_handle = getattr(stream, self.function)
        history: list[tuple[float, ...]] = []
        handle: Any = None

        def advance(*values: float) -> Value:
            nonlocal handle
            if handle is not None:
                return handle.update(*values)
            if any(value != value for value in values):  # leading NaN is not history, in batch neither
                return nothing
            history.append(values)
            if len(history) < enough:
                return nothing
            columns = np.array(history, dtype=np.float64).T
            try:
                handle = open_handle(*(np.ascontiguousarray(column) for column in columns), **parameters)
            except _InsufficientHistory:  # some functions want a little more than their lookback
                return nothing
            history.clear()
            return handle.value

        return advance


@dataclass(frozen=True)
class Output(Node):
    """One output of a TA-Lib function that has several."""

    source: Node
    index: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.source,)

    def batch(self, *values: Value) -> Value:
        return values[0][self.index]


def warmup(node: Node) -> int:
    """Bars, the present one included, after which the value depends on the first bar by less than 1e-6."""
    return node.memory + max((warmup(child) for child in node.inputs), default=1)


def in_order(roots: Sequence[Node]) -> list[Node]:
    """Every node below `roots` once, inputs before what uses them."""
    order: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in order:
            for child in node.inputs:
                visit(child)
            order[node] = None

    for root in roots:
        visit(root)
    return list(order)


def evaluate(roots: Sequence[Node], columns: Mapping[str, npt.NDArray[np.float64]]) -> list[npt.NDArray[np.float64]]:
    """Each root over whole columns [T]; NaN before it has enough bars."""
    values: dict[Node, Value] = {}
    for node in in_order(roots):
        values[node] = columns[node.name] if isinstance(node, Column) else node.batch(*(values[child] for child in node.inputs))
    return [values[root] for root in roots]


class Stepper:
    """The same formulas one bar at a time: about a microsecond per node and bar."""

    def __init__(self, roots: Sequence[Node], columns: Sequence[str]) -> None:
        """`columns` names the order of `update`'s arguments."""
        nodes: list[Node] = [Column(name) for name in columns]
        nodes += [node for node in in_order(roots) if not isinstance(node, Column)]
        slot = {node: index for index, node in enumerate(nodes)}
        self._columns = len(columns)
        self._program = [(node.step(), tuple(slot[child] for child in node.inputs)) for node in nodes[self._columns :]]
        self._roots = [slot[root] for root in roots]

    def update(self, *row: float) -> list[float]:
        """Takes a closed bar's columns, gives the roots' values at it."""
        values: list[Value] = list(row)
        for step, slots in self._program:
            values.append(step(*[values[index] for index in slots]))
        return [values[root] for root in self._roots]
