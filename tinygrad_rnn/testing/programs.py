"""Random programs: small graphs of operations with sharing, broadcasting and reductions, that print themselves as Python.

A program is drawn together with a point at which all is well: every value is finite and of moderate size, nothing lies near a kink or
a pole, so that every derivative can be checked. One generator serves two sources of choices: Hypothesis
(:func:`tinygrad_rnn.testing.strategies.programs`), which shrinks, and a seed (:func:`random_program`), which is quick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import ops
from .as_code import written

Choose = Callable[[int], int]
"""A whole number below n; the smaller, the simpler."""

_NEAR = 0.05
_LARGE, _ENTRIES, _ATTEMPTS = 20.0, 36, 3


def _always(*operands: Any) -> bool:
    return True


def _none(choose: Choose, *operands: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, repr=False)
class Operation:
    """Something that a statement can do.

    Attributes:
        name: what the statement calls, ``tg.name``, and the key under which ``Program.run`` looks for another implementation.
        call: ``call(*operands, **statics)``, on arrays and on Tensors.
        arity: how many operands it takes, whose shapes broadcast; 0 for one to three of equal shape.
        statics: draws the keywords for these operands (arrays).
        safe: whether these operands are away from kinks and poles.
        text: how the call is written; by default ``tg.name(operands, statics)``.
    """

    name: str
    call: Callable[..., Any]
    arity: int = 1
    statics: Callable[..., dict[str, Any]] = _none
    safe: Callable[..., bool] = _always
    text: Callable[[list[str], dict[str, Any]], str] | None = None

    def __repr__(self) -> str:
        return f"<operation {self.name}>"

    def written(self, names: list[str], statics: dict[str, Any]) -> str:
        """The call as code."""
        if self.text is not None:
            return self.text(names, statics)
        inside = [f"[{', '.join(names)}]"] if self.arity == 0 else names
        return f"tg.{self.name}({', '.join([*inside, *(f'{key}={written(value)}' for key, value in statics.items())])})"


@dataclass(frozen=True)
class Statement:
    """``name = operation(operands, statics)``."""

    name: str
    operation: Operation
    operands: tuple[str, ...]
    statics: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} = {self.operation.written(list(self.operands), self.statics)}"


@dataclass(frozen=True, eq=False)
class Program:
    """Statements over named inputs, and the point where to run them; the last statement is the result.

    It is a function: ``program(*tensors)`` with one Tensor (or array) per input. ``str(program)`` is a listing that runs.

    Attributes:
        inputs: name to float64 array, in order.
        statements: in order.

    Example:
        >>> from tinygrad_rnn import testing
        >>> program = testing.programs.random_program(4, most=4)
        >>> testing.gradcheck(program.tilted, *program.point)
        >>> namespace = {}
        >>> exec(str(program), namespace)                          # the listing computes the same
        >>> bool((namespace["out"].value == program(*program.point)).all())
        True
    """

    inputs: dict[str, Any]
    statements: tuple[Statement, ...]

    @property
    def point(self) -> tuple[Any, ...]:
        """The inputs' values."""
        return tuple(self.inputs.values())

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of what is called, in order."""
        return tuple(statement.operation.name for statement in self.statements)

    def __call__(self, *operands: Any) -> Any:
        return self.run(*operands)

    def tilted(self, *operands: Any) -> Any:
        """The result plus 0.1 (√2 s + s²), with s the sum of all inputs: a program none of whose derivatives is 0 only up to rounding.

        Where terms cancel (a softmax of equals, x / x) a derivative is 0 or 10⁻¹⁷, by chance, and nothing can be compared to relative
        precision. Tilted, all first and second derivatives are numbers: √2 + 2s is 0 for no inputs of two decimals.
        """
        total = sum((ops.sum(x) for x in operands), start=0.0)
        return self(*operands) + 0.1 * (math.sqrt(2.0) * total + total * total)

    def run(self, *operands: Any, using: Mapping[str, Callable[..., Any]] | None = None) -> Any:
        """The result; ``using`` gives other implementations by name, ``using[name](*operands, **statics)`` (another library's, say)."""
        values = dict(zip(self.inputs, operands, strict=True))
        for statement in self.statements:
            call = statement.operation.call if using is None else using[statement.operation.name]
            values[statement.name] = call(*(values[name] for name in statement.operands), **statement.statics)
        return values[self.statements[-1].name]

    def __str__(self) -> str:
        lines = ["import numpy as np, tinygrad_rnn as tg"]
        lines += [f"{name} = tg.tensor({written(array)}, requires_grad=True)" for name, array in self.inputs.items()]
        lines += [str(statement) for statement in self.statements]
        return "\n".join([*lines, f"out = {self.statements[-1].name}"])

    def definition_as(self, name: str) -> list[str]:
        """The lines of a function of this name that computes the same, without the point."""
        start, end = f"def {name}({', '.join(self.inputs)}):", f"    return {self.statements[-1].name}"
        tilted = f"{name}.tilted = lambda *xs: {name}(*xs) + 0.1 * ((s := sum(tg.sum(x) for x in xs)) + s * s)"
        return [start, *(f"    {statement}" for statement in self.statements), end, tilted]

    def __repr__(self) -> str:
        return f"<program\n{self}\n>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis and IPython print it."""
        printer.text(repr(self))


# -- operations ---------------------------------------------------------------------------------------------------------------


def _axis(choose: Choose, x: Any) -> dict[str, Any]:
    options = [None, *range(x.ndim)]
    return {"axis": options[choose(len(options))], "keepdims": bool(choose(2))}


def _one_axis(choose: Choose, *operands: Any) -> dict[str, Any]:
    return {"axis": choose(operands[0].ndim)}


def _new_axis(choose: Choose, *operands: Any) -> dict[str, Any]:
    return {"axis": choose(operands[0].ndim + 1)}


def _has_axes(*operands: Any) -> bool:
    return all(x.ndim > 0 for x in operands)


def _other_shape(choose: Choose, x: Any) -> dict[str, Any]:
    options = [(x.size,), x.shape[::-1], (1, *x.shape), (*x.shape, 1)]
    return {"shape": options[choose(len(options))]}


def _order(choose: Choose, x: Any) -> dict[str, Any]:
    left = list(range(x.ndim))
    return {"axes": tuple(left.pop(len(left) - 1 - choose(len(left))) for _ in range(x.ndim))}


def _wider(choose: Choose, x: Any) -> dict[str, Any]:
    shape = tuple(1 + choose(3) if n == 1 else n for n in x.shape)
    return {"shape": (2, *shape) if choose(2) else shape}


def key_for(choose: Choose, shape: tuple[int, ...]) -> Any:
    """An index expression for a shape: slices, numbers, new axes, arrays that pick twice, masks."""
    if not shape:
        return (Ellipsis, None)[: 1 + choose(2)]
    n = shape[0]
    options: list[Any] = [
        0,
        slice(1, None) if n > 1 else slice(None),
        slice(None, None, -1),
        (Ellipsis, -1),
        (None, slice(None)),
        np.array([0, n - 1, 0]),
        np.arange(n) % 2 == 0,
    ]
    return options[choose(len(options))]


def _key(choose: Choose, x: Any) -> dict[str, Any]:
    return {"key": key_for(choose, x.shape)}


def _mask(choose: Choose, x: Any, y: Any) -> dict[str, Any]:
    shape = np.broadcast_shapes(x.shape, y.shape)
    return {"condition": np.random.default_rng(choose(1 << 16)).random(shape) < 0.5}


def _index_text(names: list[str], statics: dict[str, Any]) -> str:
    return f"{names[0]}[{_key_text(statics['key'])}]"


def _key_text(key: Any) -> str:
    if isinstance(key, tuple):
        return ", ".join(map(_key_text, key)) + "," * (len(key) == 1)
    if isinstance(key, slice):
        return ":".join("" if part is None else str(part) for part in (key.start, key.stop, key.step)).removesuffix(":") or ":"
    return "..." if key is Ellipsis else written(key)


def _where_text(names: list[str], statics: dict[str, Any]) -> str:
    return f"tg.where({written(statics['condition'])}, {names[0]}, {names[1]})"


def _matrices(x: Any, y: Any) -> bool:
    return bool(x.ndim and y.ndim and x.shape[-1] == y.shape[-2 if y.ndim > 1 else 0])


def _away(x: Any) -> bool:
    return bool((np.abs(x) > _NEAR).all())


def _positive(x: Any) -> bool:
    return bool((x > 0.3).all())


def _gap(x: Any) -> bool:
    """No two entries are near each other."""
    return bool((np.diff(np.sort(x, axis=None)) > _NEAR).all())


def _nonempty_gap(x: Any) -> bool:
    return x.size > 0 and _gap(x)


OPERATIONS: tuple[Operation, ...] = (
    Operation("add", ops.add, 2),
    Operation("multiply", ops.multiply, 2),
    Operation("subtract", ops.subtract, 2),
    Operation("tanh", ops.tanh),
    Operation("sum", ops.sum, statics=_axis),
    Operation("matmul", ops.matmul, 2, safe=_matrices),
    Operation("sigmoid", ops.sigmoid),
    Operation("sin", ops.sin),
    Operation("exp", ops.exp),
    Operation("square", ops.square),
    Operation("negative", ops.negative),
    Operation("softplus", ops.softplus),
    Operation("log", ops.log, safe=_positive),
    Operation("sqrt", ops.sqrt, safe=_positive),
    Operation("divide", ops.divide, 2, safe=lambda x, y: bool((np.abs(y) > 0.3).all())),
    Operation("mean", ops.mean, statics=_axis),
    Operation("relu", ops.relu, safe=_away),
    Operation("abs", ops.absolute, safe=_away),
    Operation("maximum", ops.maximum, 2, safe=lambda x, y: bool((np.abs(x - y) > _NEAR).all())),
    Operation("minimum", ops.minimum, 2, safe=lambda x, y: bool((np.abs(x - y) > _NEAR).all())),
    Operation("max", ops.max, statics=_axis, safe=_nonempty_gap),
    Operation("min", ops.min, statics=_axis, safe=_nonempty_gap),
    Operation("reshape", ops.reshape, statics=_other_shape),
    Operation("transpose", ops.transpose, statics=_order),
    Operation("broadcast_to", ops.broadcast_to, statics=_wider),
    Operation("getitem", lambda x, key: x[key], statics=_key, text=_index_text),
    Operation("where", lambda x, y, condition: ops.where(condition, x, y), 2, statics=_mask, text=_where_text),
    Operation("concatenate", lambda *xs, axis: ops.concatenate(xs, axis=axis), 0, statics=_one_axis, safe=_has_axes),
    Operation("stack", lambda *xs, axis: ops.stack(xs, axis=axis), 0, statics=_new_axis),
    Operation("cumsum", ops.cumsum, statics=_one_axis, safe=_has_axes),
    Operation("softmax", ops.softmax, statics=_one_axis, safe=_has_axes),
    Operation("logsumexp", ops.logsumexp, statics=_one_axis, safe=_has_axes),
)
"""What programs are made of, the simplest first."""

_FALLBACK = Operation("tanh", ops.tanh)


# -- drawing ------------------------------------------------------------------------------------------------------------------


def build(choose: Choose, *, most: int = 10, inputs: int = 3, operations: Sequence[Operation] = OPERATIONS) -> Program:
    """A program from choices.

    Args:
        choose: ``choose(n)`` gives a whole number below n.
        most: the largest number of statements drawn; those that do not lead to the result are left out again.
        inputs: the largest number of inputs.
        operations: what to choose from.
    """
    rng = np.random.default_rng(choose(1 << 16))
    values: dict[str, Any] = {}
    for k in range(1 + choose(inputs)):
        shape = tuple((2, 3, 1)[choose(3)] for _ in range((0, 1, 2, 2)[choose(4)]))
        values["abc"[k] if inputs <= 3 else f"x{k}"] = rounded(rng.uniform(-2.0, 2.0, shape))
    given = dict(values)
    statements = []
    for k in range(most):
        if k and choose(most) == 0:  # asked before every statement, so that Hypothesis can leave any of them out
            break
        for _ in range(_ATTEMPTS):
            operation = operations[choose(len(operations))]
            statement, value = _tried(f"v{k}", operation, _operands(choose, operation, values), values, choose)
            if statement.operation is operation:
                break
        statements.append(statement)
        values[statement.name] = value
    return _pruned(given, statements)


def _operands(choose: Choose, operation: Operation, values: dict[str, Any]) -> tuple[str, ...]:
    """The latest value is the likeliest, and the simplest."""
    latest = list(values)[::-1]
    first = latest[choose(len(latest)) if choose(4) == 3 else 0]
    shape = values[first].shape
    if operation.arity == 1:
        return (first,)
    if operation.arity == 0:
        alike = [name for name in latest if values[name].shape == shape]
        return (first, *(alike[choose(len(alike))] for _ in range(choose(3))))
    fitting = [name for name in latest if operation.safe is _matrices or _broadcasts(shape, values[name].shape)]
    return (first, *(fitting[choose(len(fitting))] for _ in range(operation.arity - 1)))


def _broadcasts(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(one[::-1], other[::-1], strict=False))


def _tried(name: str, operation: Operation, names: tuple[str, ...], values: dict[str, Any], choose: Choose) -> tuple[Statement, Any]:
    """The statement and its value; tanh of the first operand, if the value would be large, or derivatives doubtful."""
    operands = [values[operand] for operand in names]
    if operation.safe(*operands):
        statics = operation.statics(choose, *operands)
        with np.errstate(all="ignore"):
            value = operation.call(*operands, **statics)
        value = np.asarray(getattr(value, "value", value))
        if 0 < value.size <= _ENTRIES and np.isfinite(value).all() and np.abs(value).max() < _LARGE:
            return Statement(name, operation, names, statics), value
    return Statement(name, _FALLBACK, names[:1]), np.tanh(operands[0])


def _pruned(inputs: dict[str, Any], statements: list[Statement]) -> Program:
    needed = {statements[-1].name}
    kept: list[Statement] = []
    for statement in reversed(statements):
        if statement.name in needed:
            needed.update(statement.operands)
            kept.append(statement)
    kept.reverse()
    renamed = {statement.name: f"v{k}" for k, statement in enumerate(kept)}
    again = (Statement(renamed[s.name], s.operation, tuple(renamed.get(o, o) for o in s.operands), s.statics) for s in kept)
    return Program({name: array for name, array in inputs.items() if name in needed}, tuple(again))


def rounded(numbers: Any) -> Any:
    """Numbers with two decimals, and none of them 0: easy to read, and all entries count."""
    short = np.round(numbers, 2)
    return np.where(short == 0.0, 0.01, short)


def random_program(
    rng: np.random.Generator | int, *, most: int = 10, inputs: int = 3, operations: Sequence[Operation] = OPERATIONS
) -> Program:
    """A program drawn by a generator or seed; the same seed gives the same program.

    Example:
        >>> from tinygrad_rnn.testing import programs
        >>> print(programs.random_program(42, most=6))
        import numpy as np, tinygrad_rnn as tg
        b = tg.tensor(np.array([[-0.66], [1.67]]), requires_grad=True)
        c = tg.tensor(np.array(-1.52), requires_grad=True)
        v0 = tg.transpose(b, axes=(0, 1))
        v1 = tg.sum(c, axis=None, keepdims=True)
        v2 = tg.divide(v1, v0)
        out = v2
    """
    source = np.random.default_rng(rng)
    return build(lambda n: int(source.integers(n)), most=most, inputs=inputs, operations=operations)


def several(seed: int, count: int, **options: Any) -> Iterator[Program]:
    """``count`` programs, each from a seed of its own, so that any of them can be had again alone."""
    return (random_program(np.random.default_rng([seed, k]), **options) for k in range(count))
