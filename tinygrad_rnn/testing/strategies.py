"""Hypothesis strategies: shapes, arrays, Tensors, index expressions, programs, cells, layers and sequences on which laws can be checked.

The only module of the package that imports Hypothesis. Shapes, options and programs are drawn choice by choice and shrink to few, short
and plain ones; numbers follow from a drawn seed, have two decimals, and lie in a *domain* that keeps away from kinks and poles
(or, ``at_kinks``, sits on them).

Example:
    >>> from hypothesis import given
    >>> from tinygrad_rnn.testing import gradcheck, laws, strategies
    >>> @given(strategies.broadcastable(strategies.real, strategies.nonzero))
    ... def test_a_quotient_has_the_right_slope(pair):
    ...     gradcheck(lambda x, y: x / y, *pair)
    >>> @given(strategies.layers())
    ... def test_a_layer_of_any_options_obeys_the_laws(case):
    ...     laws.itemised_sums(case.module, *case.inputs, **case.statics)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError, MissingError
from ..tensor import Tensor, tensor
from . import programs as _programs
from .as_code import written
from .programs import Operation, Program

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise MissingError('testing.strategies: Hypothesis is not installed; pip install "tinygrad_rnn[test]"') from error

Shape = tuple[int, ...]
Domain = Callable[[np.random.Generator, Shape], Any]
"""Fills a shape with numbers."""


def real(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers in [−2, 2], none of them 0."""
    return np.asarray(_programs.rounded(rng.uniform(-2.0, 2.0, shape)))


def positive(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers in [0.4, 2.5]."""
    return np.asarray(np.round(rng.uniform(0.4, 2.5, shape), 2))


def nonzero(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers of both signs, with |x| in [0.4, 2.5]."""
    return np.asarray(positive(rng, shape) * rng.choice([-1.0, 1.0], shape))


def spaced(rng: np.random.Generator, shape: Shape, offset: float = 0.0) -> Any:
    """Numbers of which no two are nearer to each other than 0.3 (nor, with offset ½, to those of another draw without)."""
    size = int(np.prod(shape))
    return np.asarray(np.round((rng.permutation(size) - size // 2 + offset) * 0.8 + rng.uniform(0.0, 0.1, size), 2).reshape(shape))


def between(rng: np.random.Generator, shape: Shape) -> Any:
    """Like ``spaced``, and at least 0.3 from any number of such a draw."""
    return spaced(rng, shape, 0.5)


def at_kinks(rng: np.random.Generator, shape: Shape) -> Any:
    """Exactly 0, 1 or −1, with ties: where relu, abs, maximum, clip and the like have no derivative, but a documented slope."""
    return rng.integers(-1, 2, shape).astype(np.float64)


def extreme(rng: np.random.Generator, shape: Shape) -> Any:
    """Numbers of both signs from 1e-300 to 1e300, and 0: for what must stay finite, or say where it does not."""
    return np.asarray(rng.choice([0.0, 1e-300, 1e-12, 1.0, 40.0, 1e3, 1e300], shape) * rng.choice([-1.0, 1.0], shape))


LENGTHS = st.sampled_from([2, 3, 1, 2, 3, 1, 2, 3, 0])
"""Lengths of axes: mostly not 0, since an empty array shows little."""


def shapes(min_dims: int = 0, max_dims: int = 3, min_side: int = 0) -> st.SearchStrategy[Shape]:
    """Shapes with axes of up to 3 entries, now and then of 0 (unless ``min_side`` says otherwise)."""
    lengths = LENGTHS.filter(lambda n: n >= min_side)
    return st.integers(min_dims, max_dims).flatmap(lambda ndim: st.tuples(*[lengths] * ndim))


@st.composite
def stretchable(draw: st.DrawFn, count: int) -> tuple[tuple[Shape, ...], Shape]:
    """Several shapes that broadcast against each other, and what they broadcast to."""
    common = draw(shapes())
    drawn = [tuple(1 if draw(st.integers(0, 4)) == 1 else n for n in common[draw(st.integers(0, len(common))) :]) for _ in range(count - 1)]
    order = draw(st.permutations([common, *drawn]))
    return tuple(order), common


@st.composite
def arrays(draw: st.DrawFn, shape: Shape | st.SearchStrategy[Shape] | None = None, domain: Domain = real) -> Any:
    """A float64 array of a shape (given or drawn; by default any of :func:`shapes`) in a domain."""
    wanted = shape if isinstance(shape, tuple) else draw(shapes() if shape is None else shape)
    return domain(np.random.default_rng(draw(st.integers(0, 2**16))), wanted)


@st.composite
def broadcastable(draw: st.DrawFn, *domains: Domain) -> tuple[Any, ...]:
    """One array per domain, of shapes that broadcast against each other."""
    drawn, _ = draw(stretchable(len(domains)))
    return tuple(draw(arrays(shape, domain)) for shape, domain in zip(drawn, domains, strict=True))


def axes_of(ndim: int) -> st.SearchStrategy[Shape]:
    """Some of the axes of an array, in increasing order."""
    return st.sets(st.integers(0, ndim - 1)).map(lambda chosen: tuple(sorted(chosen))) if ndim else st.just(())


def dtypes() -> st.SearchStrategy[Any]:
    """What a Tensor with a gradient can be of: float64, float32."""
    return st.sampled_from([np.dtype(np.float64), np.dtype(np.float32)])


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    domain: Domain = real,
    *,
    dtype: Any = np.float64,
    requires_grad: bool | st.SearchStrategy[bool] = True,
) -> Tensor:
    """A Tensor of a shape (given or drawn; by default any of :func:`shapes`) in a domain.

    ``dtype`` and ``requires_grad`` may be strategies too.

    Example:
        >>> from hypothesis import given
        >>> from tinygrad_rnn.testing import strategies
        >>> @given(strategies.tensors(dtype=strategies.dtypes()))
        ... def test_a_gradient_has_the_dtype_of_its_tensor(x):
        ...     x.sum().backward()
        ...     assert x.grad.dtype == x.dtype
        >>> test_a_gradient_has_the_dtype_of_its_tensor()
    """
    kind = draw(dtype) if isinstance(dtype, st.SearchStrategy) else dtype
    wanted = draw(requires_grad) if isinstance(requires_grad, st.SearchStrategy) else requires_grad
    return tensor(draw(arrays(shape, domain)).astype(kind), requires_grad=wanted)


def index_expressions(shape: Shape) -> st.SearchStrategy[Any]:
    """What may stand in ``x[…]`` for an array of this shape: numbers, slices, new axes, ellipses, masks, and arrays of numbers, those
    that pick an entry twice among them.

    Example:
        >>> import numpy as np
        >>> from hypothesis import given
        >>> from tinygrad_rnn.testing import gradcheck, strategies
        >>> @given(strategies.index_expressions((3, 2)))
        ... def test_what_is_picked_twice_receives_both(key):
        ...     gradcheck(lambda x: x[key], np.ones((3, 2)))
        >>> test_what_is_picked_twice_receives_both()
    """
    if not isinstance(shape, tuple):
        raise ArgumentError(f"index_expressions: expected a shape such as (3, 2), got {shape!r}")
    ndim = len(shape)
    choices: list[Any] = [hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True), hnp.arrays(bool, shape)]
    if ndim and shape[0]:
        first = hnp.arrays(np.intp, shapes(max_dims=2), elements=st.integers(-shape[0], shape[0] - 1))
        choices += [first, first.map(lambda a: (a, Ellipsis)), first.map(lambda a: (None, a)), st.integers(0, shape[0] - 1)]
    if ndim > 1 and 0 not in shape:
        last = hnp.arrays(np.intp, (2,), elements=st.integers(-shape[-1], shape[-1] - 1))
        choices += [last.map(lambda a: (0, Ellipsis, a)), last.map(lambda a: (slice(None), *[slice(None)] * (ndim - 2), a))]
    return st.one_of(choices)


@st.composite
def programs(draw: st.DrawFn, *, most: int = 10, inputs: int = 3, operations: tuple[Operation, ...] = _programs.OPERATIONS) -> Program:
    """Random programs: graphs of operations with sharing, broadcasting and reductions, and a point where to run them.

    A failing one shrinks to the few statements that fail, and prints as Python that runs.

    Args:
        most, inputs: the largest numbers of statements and of inputs.
        operations: what they are made of; ``testing.programs.OPERATIONS`` with your own added, say.

    Example:
        >>> from hypothesis import given, settings
        >>> from tinygrad_rnn.testing import laws, strategies
        >>> @settings(max_examples=10)
        ... @given(strategies.programs())
        ... def test_forward_and_reverse_mode_agree(program):
        ...     laws.adjoint(program.tilted, *program.point)
        >>> test_forward_and_reverse_mode_agree()
    """
    _largest("programs", most=most, inputs=inputs)
    if not operations:
        raise ArgumentError("programs: expected at least one operation to choose from, got none")
    return _programs.build(lambda n: draw(st.integers(0, n - 1)), most=most, inputs=inputs, operations=operations)


# -- recurrent cells and layers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Example:
    """A module with what to call it with: ``module(*inputs, **statics)``.

    Attributes:
        code: the expression that makes the module again.
    """

    code: str
    module: Any
    inputs: tuple[Any, ...]
    statics: dict[str, Any]

    def __repr__(self) -> str:
        arguments = [*map(written, self.inputs), *(f"{name}={written(value)}" for name, value in self.statics.items())]
        return f"{self.code}({', '.join(arguments)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis prints it."""
        printer.text(repr(self))


@dataclass(frozen=True, eq=False)
class Sequences:
    """A padded batch: x (T, B, I), and how many steps of each sequence count (None: all)."""

    x: Any
    lengths: list[int] | None

    @property
    def padding(self) -> Any:
        """(T, B): where there is nothing."""
        steps, batch = self.x.shape[:2]
        return np.arange(steps)[:, None] >= np.array([steps] * batch if self.lengths is None else self.lengths)


SIZES = st.sampled_from([1, 2, 3])


@st.composite
def sequences(
    draw: st.DrawFn, *, steps: int = 5, batch: int = 3, size: int | st.SearchStrategy[int] = SIZES, domain: Domain = real
) -> Sequences:
    """Padded batches of up to ``steps`` steps and ``batch`` sequences (also none), with or without lengths from 0 to T.

    Example:
        >>> from hypothesis import given
        >>> from tinygrad_rnn import nn
        >>> from tinygrad_rnn.testing import strategies
        >>> @given(strategies.sequences(size=2))
        ... def test_padding_gives_zeros(batch):
        ...     outputs, _ = nn.GRU(2, 3, rng=0)(batch.x, lengths=batch.lengths)
        ...     assert not outputs.value[batch.padding].any()
        >>> test_padding_gives_zeros()
    """
    _largest("sequences", steps=steps, batch=batch)
    length, rows = draw(st.integers(1, steps)), draw(st.sampled_from([1, *range(2, batch + 1), 0]))
    width = size if isinstance(size, int) else draw(size)
    lengths = draw(st.none() | st.lists(st.integers(0, length), min_size=rows, max_size=rows))
    return Sequences(draw(arrays((length, rows, width), domain)), lengths)


_KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "rnn": ("RNN", {}, 1),
    "lstm": ("LSTM", {}, 2),
    "gru": ("GRU", {}, 1),
    "rnn-relu": ("RNN", {"nonlinearity": "relu"}, 1),
    "gru-before": ("GRU", {"reset": "before"}, 1),
}
SMOOTH = ("rnn", "lstm", "gru", "gru-before")
"""The kinds without a kink."""


def _largest(operation: str, **sizes: Any) -> None:
    """Refuse what is no largest size."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError(f"{operation}: expected {name} to be a whole number of at least 1, got {size!r}")


@st.composite
def _options(draw: st.DrawFn, operation: str, kinds: tuple[str, ...]) -> tuple[str, dict[str, Any], int]:
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(_KINDS):
        raise ArgumentError(f"{operation}: expected some of the kinds {', '.join(_KINDS)}, got {kinds!r}")
    name, options, parts = _KINDS[draw(st.sampled_from(kinds))]
    chosen = dict(options)
    if not draw(st.sampled_from([True, False])):
        chosen["bias"] = False
    return name, chosen, parts


def _made(name: str, sizes: tuple[int, ...], options: dict[str, Any], seed: int) -> tuple[str, Any]:
    settings = {**options, "rng": seed}
    code = f"nn.{name}({', '.join([*map(str, sizes), *(f'{key}={value!r}' for key, value in settings.items())])})"
    return code, getattr(nn, name)(*sizes, **settings)


@st.composite
def cells(draw: st.DrawFn, kinds: tuple[str, ...] = SMOOTH, *, batch: int = 3) -> Example:
    """Cells with their options, x, and a state (or none).

    Args:
        kinds: from "rnn", "lstm", "gru", "gru-before" and "rnn-relu".
        batch: the largest batch; x may be one vector too.

    Example:
        >>> from hypothesis import given, settings
        >>> from tinygrad_rnn.testing import laws, strategies
        >>> @settings(max_examples=10)
        ... @given(strategies.cells())
        ... def test_a_cell_obeys_the_chain_rule(case):
        ...     laws.adjoint(case.module, *case.inputs)
        >>> test_a_cell_obeys_the_chain_rule()
    """
    _largest("cells", batch=batch)
    name, options, parts = draw(_options("cells", kinds))
    inputs, size, rows = draw(SIZES), draw(SIZES), draw(st.sampled_from([(1,), *((b,) for b in range(2, batch + 1)), ()]))
    code, module = _made(f"{name}Cell", (inputs, size), options, draw(st.integers(0, 99)))
    x = draw(arrays((*rows, inputs)))
    state = tuple(draw(arrays((*rows, size))) for _ in range(parts)) if draw(st.booleans()) else None
    return Example(code, module, (x,) if state is None else (x, state), {})


@st.composite
def layers(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = SMOOTH,
    *,
    num_layers: int = 2,
    steps: int = 4,
    batch: int = 3,
    lengths: bool = True,
    one_way: bool = False,
    dropout: bool = False,
    size: int = 3,
    empty: bool = False,
    dtype: str = "float64",
) -> Example:
    """Layers with their options, a sequence with lengths (or none), and a state (or none).

    Args:
        kinds: from "rnn", "lstm", "gru", "gru-before" and "rnn-relu".
        num_layers, steps, batch: the largest; x may be one sequence without a batch too.
        lengths: whether there may be lengths.
        one_way: whether they only run forward in time.
        dropout: whether there may be dropout between layers (the module draws from its generator at each call).
        size: the largest number of inputs and of hidden units.
        empty: whether there may be no sequence in a batch.
        dtype: of parameters and inputs.

    Example:
        >>> from hypothesis import given, settings
        >>> from tinygrad_rnn.testing import laws, strategies
        >>> @settings(max_examples=10)
        ... @given(strategies.layers())
        ... def test_a_kernel_is_its_definition(case):
        ...     laws.kernel_equals_definition(case.module, *case.inputs, **case.statics)
        >>> test_a_kernel_is_its_definition()
    """
    _largest("layers", num_layers=num_layers, steps=steps, batch=batch, size=size)
    name, options, parts = draw(_options("layers", kinds))
    inputs, units, depth = draw(st.integers(1, size)), draw(st.integers(1, size)), draw(st.integers(1, num_layers))
    sizes: tuple[int, ...] = (inputs, units) if depth == 1 else (inputs, units, depth)
    drawn = {
        "bidirectional": not one_way and draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "residual": draw(st.sampled_from([None, "skip", "dense"])) if depth > 1 else None,
        "dropout": draw(st.sampled_from([0.0, 0.5])) if dropout and depth > 1 else 0.0,
        "dtype": "" if dtype == "float64" else dtype,
    }
    options |= {key: value for key, value in drawn.items() if value}
    code, module = _made(name, sizes, options, draw(st.integers(0, 99)))
    length, rows = draw(st.integers(1, steps)), draw(st.sampled_from([1, *range(2, batch + 1), None, *[0] * empty]))
    form = (length, inputs) if rows is None else (rows, length, inputs) if options.get("batch_first") else (length, rows, inputs)
    x = draw(arrays(form)).astype(dtype)
    count = depth * (1 + bool(options.get("bidirectional")))
    part = (count, units) if rows is None else (count, rows, units)
    state = tuple(draw(arrays(part)).astype(dtype) for _ in range(parts)) if draw(st.booleans()) else None
    number = 1 if rows is None else rows
    drawn_lengths = draw(st.none() | st.lists(st.integers(0, length), min_size=number, max_size=number)) if lengths else None
    return Example(code, module, (x,) if state is None else (x, state), {} if drawn_lengths is None else {"lengths": drawn_lengths})
