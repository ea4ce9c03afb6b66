"""Optimisers, gradient clipping and learning-rate schedules.

One step of training, in PyTorch's order: ``zero_grad``, ``backward``, clip, ``optimizer.step()``, ``schedule.step()``.

An optimiser gives each parameter a *new* value and writes to none, so what a graph, a trace or a caller still holds stays what it
was; a backward pass through a graph that was recorded before the step is refused, as after any rebinding. An update reads like its
equation, in the symbols of PyTorch's documentation: w the value, g the gradient, t how many steps the parameter has taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ArgumentError, StateError
from .graph import silent
from .tensor import Tensor, as_array

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ClipCounter",
    "CosineLR",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepLR",
    "WarmUp",
    "clip_grad_norm",
    "clip_grad_value",
]

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]]

# -- settings and states ------------------------------------------------------------------------------------------------------


class _Setting:
    """A number that an optimiser or a schedule runs by: checked whenever it is set, and part of the state."""

    def __init__(self, kind: type, expected: str, fits: Callable[[Any], bool]) -> None:
        self.kind = kind
        self.expected = expected
        self.fits = fits
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        return self if owner is None else owner.__dict__[self.name]

    def __set__(self, owner: Any, value: Any) -> None:
        owner.__dict__[self.name] = self.checked(type(owner).__name__, value)

    def checked(self, operation: str, value: Any) -> Any:
        """The value as a Python number; scalars and zero-dimensional arrays are numbers too, since files hold them as such."""
        plain = _plain(value)
        whole = isinstance(plain, int) and (self.kind is bool or not isinstance(plain, bool))
        if (whole or (isinstance(plain, float) and self.kind is float and math.isfinite(plain))) and self.fits(plain):
            try:
                return self.kind(plain)
            except OverflowError:  # a whole number that no float can hold
                pass
        raise ArgumentError(f"{operation}: {self.name} must be {self.expected}, got {value!r}")


def _at_least_0() -> _Setting:
    return _Setting(float, "a finite number of at least 0", lambda x: x >= 0)


def _fraction() -> _Setting:
    return _Setting(float, "in [0, 1): at least 0 and less than 1", lambda x: 0 <= x < 1)


def _whole(least: int) -> _Setting:
    return _Setting(int, f"a whole number of at least {least}, below 2⁶³", lambda x: least <= x < 2**63)


def _switch() -> _Setting:
    return _Setting(bool, "True or False", lambda x: x in (0, 1))


class _Configured:
    """What has settings."""

    @classmethod
    def _declared(cls) -> dict[str, _Setting]:
        return {name: found for kind in reversed(cls.__mro__) for name, found in vars(kind).items() if isinstance(found, _Setting)}

    @classmethod
    def _checked(cls, operation: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """All settings, each in its range and in agreement."""
        checked = {name: setting.checked(operation, values[name]) for name, setting in cls._declared().items()}
        cls._agree(operation, checked)
        return checked

    @classmethod
    def _agree(cls, operation: str, settings: dict[str, Any]) -> None:
        """Refuse settings that contradict each other."""

    def _configure(self, **values: Any) -> None:
        if unknown := sorted(values.keys() - self._declared()):
            raise ArgumentError(f"{type(self).__name__}: got unknown settings {unknown}; it has {sorted(self._declared())}")
        vars(self).update(self._checked(type(self).__name__, values))

    def _settings(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in self._declared()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._settings().items())})"


def _plain(value: Any) -> Any:
    """A scalar or a zero-dimensional array as a Python number or text; anything else as it is."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value


def _entries(operation: str, state: Any) -> dict[tuple[str, ...], Any]:
    """The entries of nested dicts by their paths."""
    if not isinstance(state, Mapping):
        raise StateError(f"{operation}: expected a dict as state_dict() gives it, got {type(state).__name__}")
    found: dict[tuple[str, ...], Any] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), state)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, Mapping):
            pending += [((*path, str(key)), inner) for key, inner in part.items()]
        else:
            found[path] = part
    return found


def _same_kind(operation: str, owner: Any, given: Mapping[tuple[str, ...], Any], prefix: tuple[str, ...] = ()) -> None:
    kind, wanted = _plain(given.get((*prefix, "kind"))), type(owner).__name__
    if not isinstance(kind, str) or kind != wanted:
        raise StateError(f"{operation}: expected the state of {wanted}, got {'one that does not say its kind' if kind is None else kind}")


def _same_paths(operation: str, given: Iterable[tuple[str, ...]], expected: Iterable[tuple[str, ...]]) -> None:
    given, expected = set(given), set(expected)
    problems = [
        f"{what} {sorted('/'.join(path) for path in paths)}"
        for what, paths in (("missing", expected - given), ("unexpected", given - expected))
        if paths
    ]
    if problems:
        raise StateError(f"{operation}: {', '.join(problems)}. The state must be of the same settings and parameter names")


def _named(operation: str, params: Any) -> dict[str, Tensor]:
    """Parameters by name; those that come without are named by their position."""
    if isinstance(params, (Tensor, str, bytes, Mapping)) or not isinstance(params, Iterable):
        raise ArgumentError(
            f"{operation}: expected an iterable of parameters, got {type(params).__name__}. Pass module.parameters(), "
            "module.named_parameters() or a list of leaves"
        )
    named: dict[str, Tensor] = {}
    known: dict[int, str] = {}
    for position, item in enumerate(params):
        name, tensor = item if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) else (str(position), item)
        if not isinstance(tensor, Tensor):
            remedy = " For settings of their own, give these parameters an optimiser of their own" if isinstance(tensor, Mapping) else ""
            raise ArgumentError(
                f"{operation}: parameter {name} is a {type(tensor).__name__}; expected a Tensor or a pair (name, Tensor).{remedy}"
            )
        if not tensor.is_leaf:
            raise ArgumentError(f"{operation}: parameter {name} was computed; only a leaf can be rebound. Pass the leaf it came from")
        if tensor.dtype.kind != "f":
            raise ArgumentError(f"{operation}: parameter {name} has dtype {tensor.dtype}; expected a floating-point one")
        if name in named:
            raise ArgumentError(f"{operation}: two parameters are named {name!r}; give each a name of its own")
        if id(tensor) in known:
            raise ArgumentError(f"{operation}: parameters {known[id(tensor)]} and {name} are the same Tensor; pass it once")
        named[name] = tensor
        known[id(tensor)] = name
    if not named:
        raise ArgumentError(f"{operation}: got no parameters. A generator gives them only once: call module.parameters() anew each time")
    return named


# -- optimisers ---------------------------------------------------------------------------------------------------------------


class Optimizer(_Configured):
    """Base of the optimisers: takes the gradients that ``backward`` left and rebinds the values.

    A parameter without a gradient is skipped, and so is one whose ``requires_grad`` was switched off. Values and buffers keep the
    parameter's dtype. Gradients are taken as they are: a NaN goes into the value (see ``error_if_nonfinite`` of
    :func:`clip_grad_norm`). All parameters share one set of settings, each of which is an attribute that may be changed at any time
    (``optimizer.lr = 1e-4``); for several sets make several optimisers.

    Args:
        params: ``module.parameters()``, ``module.named_parameters()`` or a list of leaves. Without names they are called by position.
        lr: the learning rate.
        weight_decay: λ, adds λ w to the gradient (an L2 penalty ½ λ ‖w‖² on the loss).

    Attributes:
        params: the parameters by name.

    Raises:
        ArgumentError: for no parameters, one that comes twice, one that was computed, or a setting outside its range.

    An optimiser of your own defines ``update``, and ``buffer_names`` if it keeps something from step to step.

    Example:
        >>> import numpy as np
        >>> from tinygrad_rnn import nn, optim
        >>> class Sign(optim.Optimizer):
        ...     def update(self, w, g, t, buffers):
        ...         return w - self.lr * np.sign(g)
        >>> w = nn.Parameter([1.0, -2.0])
        >>> optimizer = Sign([w], lr=0.5)
        >>> (w**2).sum().backward()
        >>> optimizer.step()
        >>> w.value
        array([ 0.5, -1.5])
    """

    lr = _at_least_0()
    weight_decay = _at_least_0()

    def __init__(self, params: Params, lr: float = 1e-3, *, weight_decay: float = 0.0, **settings: float) -> None:
        self._configure(lr=lr, weight_decay=weight_decay, **settings)
        self.params = _named(type(self).__name__, params)
        if not any(parameter.requires_grad for parameter in self.params.values()):
            raise ArgumentError(f"{type(self).__name__}: none of the parameters requires a gradient. Make them with requires_grad=True")
        self._steps = dict.fromkeys(self.params, 0)
        self._held: dict[str, dict[str, Any]] = {name: {} for name in self.params}

    def buffer_names(self) -> tuple[str, ...]:
        """What ``update`` keeps for each parameter, with the settings as they are."""
        return ()

    def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
        """One parameter's next value.

        Args:
            w, g: the value and the gradient with the weight decay, arrays that must not be written to.
            t: which step of this parameter it is, from 1.
            buffers: the arrays that ``buffer_names`` names, zeros at first; put the next ones back under their names.
        """
        raise NotImplementedError(f"{type(self).__name__}: an optimiser needs a method update(self, w, g, t, buffers)")

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        silent().run(self._step)

    def _step(self) -> None:
        for name, parameter in self.params.items():
            if parameter.grad is None:
                continue
            w, g = parameter.value, parameter.grad.value.astype(parameter.dtype, copy=False)
            buffers = self._buffers(name)
            parameter.value = self.update(w, self._decayed(w, g), self._steps[name] + 1, buffers)
            self._steps[name] += 1
            self._held[name] = buffers

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.params.values():
            if parameter.requires_grad:
                parameter.grad = None

    def _buffers(self, name: str) -> dict[str, Any]:
        """The buffers that the settings ask for; one that was not kept yet is zero."""
        parameter, held = self.params[name], self._held[name]
        return {buffer: held[buffer] if buffer in held else np.zeros(parameter.shape, parameter.dtype) for buffer in self.buffer_names()}

    def _decayed(self, w: Any, g: Any) -> Any:
        """The gradient with that of the L2 penalty."""
        return g + self.weight_decay * w if self.weight_decay else g

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that the next steps depend on, apart from the parameters' values: nested dicts of numbers, text and arrays.

        Under "settings" the settings; under "parameters", for each name, "steps" and the buffers.
        """
        return {
            "kind": type(self).__name__,
            "settings": self._settings(),
            "parameters": {
                name: {"steps": self._steps[name], **{buffer: np.array(held) for buffer, held in self._buffers(name).items()}}
                for name in self.params
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a ``state_dict`` was taken, settings included; nothing is changed unless everything fits.

        Build the optimiser (and its schedule) as for a new run, then load its state and the parameters' values
        (``module.load_state_dict``): the next steps are those of a run that was never interrupted, to the last bit.

        Raises:
            StateError: for the state of another kind of optimiser, and for entries that are missing, unexpected or of another shape
                than their parameter; all of them are named.
            ArgumentError: for a setting outside its range.
            DtypeError: for a buffer that holds no real numbers.

        Example:
            >>> from tinygrad_rnn import nn, optim
            >>> one, two = (optim.SGD([("w", nn.Parameter([1.0]))], lr=rate, momentum=0.9) for rate in (0.1, 0.2))
            >>> one.state_dict()["parameters"]
            {'w': {'steps': 0, 'momentum_buffer': array([0.])}}
            >>> two.load_state_dict(one.state_dict())
            >>> two
            SGD(lr=0.1, weight_decay=0.0, momentum=0.9, nesterov=False)
        """
        operation = f"{type(self).__name__}.load_state_dict"
        given = _entries(operation, state)
        _same_kind(operation, self, given)
        names = [("settings", name) for name in self._declared()]
        _same_paths(operation, [path for path in given if path[0] == "settings"], names)
        old, settings = self._settings(), self._checked(operation, {name: given["settings", name] for _, name in names})
        vars(self).update(settings)  # they decide which buffers there are
        try:
            parts = [("parameters", name, part) for name in self.params for part in ("steps", *self.buffer_names())]
            _same_paths(operation, given, [("kind",), *names, *parts])
            steps, held = self._read(operation, given)
        except BaseException:
            vars(self).update(old)
            raise
        self._steps, self._held = steps, held

    def _read(self, operation: str, given: dict[tuple[str, ...], Any]) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
        """The counts and the buffers in a state, in the parameters' dtypes."""
        steps: dict[str, int] = {}
        held: dict[str, dict[str, Any]] = {}
        misfits = []
        for name, parameter in self.params.items():
            steps[name] = _STEPS.checked(f"{operation}: {name}", given["parameters", name, "steps"])
            held[name] = {}
            for buffer in self.buffer_names():
                array = as_array(given["parameters", name, buffer], f"{operation}: parameters/{name}/{buffer}")
                if array.shape != parameter.shape:
                    misfits.append(f"parameters/{name}/{buffer} has shape {array.shape}, expected {parameter.shape}")
                held[name][buffer] = array.astype(parameter.dtype, copy=False)
        if misfits:
            raise StateError(f"{operation}: {'; '.join(misfits)}. The state must come from parameters of the same shapes")
        return steps, held


_STEPS = _whole(0)
_STEPS.name = "steps"


class SGD(Optimizer):
    """Gradient descent, with momentum and Nesterov's look-ahead.

        b ← μ b + g;   w ← w − η b            (momentum μ; b = g if μ = 0)
                       w ← w − η (g + μ b)    (nesterov)

    As in PyTorch, η stands outside of b, so a change of the learning rate acts at once.

    Args:
        params, lr, weight_decay: see :class:`Optimizer`.
        momentum: μ.
        nesterov: look ahead; needs a momentum.

    Source:
        Polyak 1964 (momentum); Nesterov 1983, in the form of Sutskever, Martens, Dahl & Hinton 2013, "On the importance of
        initialization and momentum in deep learning".

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> w = nn.Parameter([1.0])
        >>> optimizer = optim.SGD([w], lr=0.25, momentum=0.5)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     (w * w).sum().backward()
        ...     optimizer.step()
        ...     print(w.item())
        0.5
        0.0
        -0.25
    """

    momentum = _at_least_0()
    nesterov = _switch()

    def __init__(
        self, params: Params, lr: float = 1e-3, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov)

    @classmethod
    def _agree(cls, operation: str, settings: dict[str, Any]) -> None:
        if settings["nesterov"] and not settings["momentum"]:
            raise ArgumentError(f"{operation}: nesterov looks ahead along the momentum, which is 0; set momentum, such as 0.9")

    def buffer_names(self) -> tuple[str, ...]:
        """See :class:`Optimizer`."""
        return ("momentum_buffer",) if self.momentum else ()

    def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
        """See the class."""
        if self.momentum:
            b = buffers["momentum_buffer"] = self.momentum * buffers["momentum_buffer"] + g
            g = g + self.momentum * b if self.nesterov else b
        return w - self.lr * g


class RMSprop(Optimizer):
    """Steps divided by a running root mean square of the gradient.

        v ← α v + (1 − α) g²;   d = g / (√v + ε);   w ← w − η d
        m ← α m + (1 − α) g;    √(v − m²) for √v     (centered: the standard deviation instead)
        b ← μ b + d;            w ← w − η b          (momentum μ)

    Where rounding makes v − m² negative it counts as 0 (PyTorch gives NaN).

    Args:
        params, lr, weight_decay: see :class:`Optimizer`.
        alpha: α, how much of the mean square is kept.
        eps: ε, outside of the root.
        momentum: μ.
        centered: divide by the standard deviation.

    Source:
        Tieleman & Hinton 2012, lecture 6.5 of "Neural networks for machine learning"; centered: Graves 2013, "Generating sequences
        with recurrent neural networks", eq. 38–45.

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> w = nn.Parameter([1.0, 100.0])
        >>> optimizer = optim.RMSprop([w], lr=0.25, alpha=0.75, eps=0.0)
        >>> (w * w).sum().backward()
        >>> optimizer.step()  # 0.25 · g / √(0.25 g²), however large g is
        >>> w.value
        array([ 0.5, 99.5])
    """

    alpha = _fraction()
    eps = _at_least_0()
    momentum = _at_least_0()
    centered = _switch()

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, alpha=alpha, eps=eps, momentum=momentum, centered=centered)

    def buffer_names(self) -> tuple[str, ...]:
        """See :class:`Optimizer`."""
        names = ["square_avg"]
        names += ["grad_avg"] if self.centered else []
        names += ["momentum_buffer"] if self.momentum else []
        return tuple(names)

    def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
        """See the class."""
        v = buffers["square_avg"] = self.alpha * buffers["square_avg"] + (1 - self.alpha) * (g * g)
        if self.centered:
            m = buffers["grad_avg"] = self.alpha * buffers["grad_avg"] + (1 - self.alpha) * g
            v = np.maximum(v - m * m, 0)
        d = g / (np.sqrt(v) + self.eps)
        if self.momentum:
            d = buffers["momentum_buffer"] = self.momentum * buffers["momentum_buffer"] + d
        return w - self.lr * d


class Adam(Optimizer):
    """Steps along a running mean of the gradient, divided by a running root mean square.

        m ← β₁ m + (1 − β₁) g;   v ← β₂ v + (1 − β₂) g²
        w ← w − η m̂ / (√v̂ + ε),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)

    The hats undo that m and v start at 0; so the first step is −η · sign g, up to ε.

    Args:
        params, lr, weight_decay: see :class:`Optimizer`. The decay goes through m and v here; see :class:`AdamW`.
        betas: (β₁, β₂); afterwards the attributes ``beta1`` and ``beta2``.
        eps: ε.

    Source:
        Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> w = nn.Parameter([1.0, -100.0])
        >>> optimizer = optim.Adam([w], lr=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> w.value.round(6)
        array([  0.5, -99.5])
    """

    beta1 = _fraction()
    beta2 = _fraction()
    eps = _at_least_0()

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ArgumentError(f"{type(self).__name__}: betas must be a pair (β₁, β₂), got {betas!r}")
        super().__init__(params, lr, weight_decay=weight_decay, beta1=betas[0], beta2=betas[1], eps=eps)

    def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
        """See the class."""
        return w - self._change(g, t, buffers)

    def buffer_names(self) -> tuple[str, ...]:
        """See :class:`Optimizer`."""
        return ("exp_avg", "exp_avg_sq")

    def _change(self, g: Any, t: int, buffers: dict[str, Any]) -> Any:
        m = buffers["exp_avg"] = self.beta1 * buffers["exp_avg"] + (1 - self.beta1) * g
        v = buffers["exp_avg_sq"] = self.beta2 * buffers["exp_avg_sq"] + (1 - self.beta2) * (g * g)
        rate = self.lr / (1 - self.beta1**t)
        return rate * (m / (np.sqrt(v) / math.sqrt(1 - self.beta2**t) + self.eps))


class AdamW(Adam):
    """Adam whose weight decay is decoupled: w ← (1 − η λ) w, then Adam's step without decay.

    In :class:`Adam` the decay is part of g, so weights with large gradients decay less; here all decay alike.

    Args:
        params, lr, betas, eps: see :class:`Adam`.
        weight_decay: λ.

    Source:
        Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2; as in PyTorch, λ is multiplied by η.

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> w = nn.Parameter([4.0])
        >>> optimizer = optim.AdamW([w], lr=0.5, weight_decay=0.5)
        >>> (0.0 * w).sum().backward()
        >>> optimizer.step()  # the gradient is 0: only the decay acts
        >>> w.value
        array([3.])
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _decayed(self, w: Any, g: Any) -> Any:
        return g

    def update(self, w: Any, g: Any, t: int, buffers: dict[str, Any]) -> Any:
        """See the class."""
        return (1 - self.lr * self.weight_decay) * w - self._change(g, t, buffers)


# -- clipping -----------------------------------------------------------------------------------------------------------------


@dataclass
class ClipCounter:
    """How often clipping was called and how often it engaged, that is, changed a gradient. See :func:`clip_grad_norm`."""

    calls: int = 0
    engaged: int = 0

    @property
    def fraction(self) -> float:
        """The share of calls that engaged; 0 before the first."""
        return self.engaged / self.calls if self.calls else 0.0

    def _count(self, engaged: bool) -> None:
        self.calls += 1
        self.engaged += engaged


def clip_grad_norm(
    params: Params | Tensor, max_norm: float, *, error_if_nonfinite: bool = False, counter: ClipCounter | None = None
) -> float:
    """Scale all gradients by one factor so that their joint norm is at most ``max_norm``; returns the norm as it was before.

        ‖g‖ = √(Σ g²) over all entries of all gradients;   g ← g · max_norm / ‖g‖   if ‖g‖ > max_norm

    The direction stays. The norm is computed in float64 and scaled, so gradients of 1e200 are clipped as they should be (if the norm
    itself is more than a float can hold, inf is returned). PyTorch divides by ‖g‖ + 1e-6; here the norm after clipping is max_norm.

    Args:
        params: as for an :class:`Optimizer`, or one Tensor. Those without a gradient do not count.
        max_norm: at least 0; ``math.inf`` only measures.
        error_if_nonfinite: raise for a NaN or an infinity among the gradients. Otherwise, as in PyTorch, they spread: infinities
            become NaN and the other entries 0; one NaN makes all of them NaN.
        counter: adds up how often clipping engaged. If that is nearly always, max_norm sets the pace and not the learning rate.

    Raises:
        ArgumentError: for no parameters, a max_norm below 0, or a gradient that is not finite if that is asked for (each is named,
            and nothing is changed).

    Source:
        Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> w = nn.Parameter([0.0, 0.0])
        >>> counter = optim.ClipCounter()
        >>> for gradient in ([3.0, 4.0], [0.3, 0.4]):
        ...     w.grad = gradient
        ...     print(optim.clip_grad_norm([w], 1.0, counter=counter), w.grad.value)
        5.0 [0.6 0.8]
        0.5 [0.3 0.4]
        >>> counter
        ClipCounter(calls=2, engaged=1)
    """
    gradients = _gradients("clip_grad_norm", params)
    limit = _limit("clip_grad_norm", "max_norm", max_norm)
    norm, engaged = silent().run(_clipped, gradients, limit, error_if_nonfinite)
    if counter is not None:
        counter._count(engaged)
    return norm


def _clipped(gradients: dict[str, tuple[Tensor, Any]], limit: float, error_if_nonfinite: bool) -> tuple[float, bool]:
    """The norm, and whether the gradients were scaled to the limit."""
    arrays = {name: g.astype(np.promote_types(g.dtype, np.float64)) for name, (_, g) in gradients.items()}
    if error_if_nonfinite and (broken := [name for name, g in arrays.items() if not np.isfinite(g).all()]):
        raise ArgumentError(f"clip_grad_norm: the gradients of {broken} are not finite. tg.detect_anomaly() finds where that began")
    peak = max((float(np.max(np.abs(g), initial=0.0)) for g in arrays.values()), default=0.0)
    exponent = int(np.frexp(peak)[1]) if math.isfinite(peak) else 0
    scaled = {name: np.ldexp(g, -exponent) for name, g in arrays.items()}  # by a power of two, so that no square overflows
    root = math.sqrt(sum(float(np.sum(g * g)) for g in scaled.values()))
    norm = float(np.ldexp(root, exponent))
    engaged = limit < math.inf and not norm <= limit  # a NaN engages
    if engaged:
        factor = limit / root
        for name, g in scaled.items():
            gradients[name][0].grad = g * factor
    return norm, engaged


def clip_grad_value(params: Params | Tensor, clip_value: float, *, counter: ClipCounter | None = None) -> None:
    """Cut every entry of every gradient to [−clip_value, clip_value]. The direction changes; a NaN stays.

    Args:
        params, counter: see :func:`clip_grad_norm`.
        clip_value: at least 0.

    Raises:
        ArgumentError: for no parameters, or a clip_value below 0.

    Source:
        Mikolov 2012, "Statistical language models based on neural networks" (thesis).

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> w = nn.Parameter([0.0, 0.0])
        >>> w.grad = [3.0, -0.5]
        >>> optim.clip_grad_value([w], 1.0)
        >>> w.grad.value
        array([ 1. , -0.5])
    """
    gradients = _gradients("clip_grad_value", params)
    limit = _limit("clip_grad_value", "clip_value", clip_value)
    engaged = False
    for parameter, g in gradients.values():
        if (np.abs(g) > limit).any():
            parameter.grad = np.clip(g, -limit, limit)
            engaged = True
    if counter is not None:
        counter._count(engaged)


def _gradients(operation: str, params: Any) -> dict[str, tuple[Tensor, Any]]:
    named = _named(operation, [params] if isinstance(params, Tensor) else params)
    return {name: (parameter, parameter.grad.value) for name, parameter in named.items() if parameter.grad is not None}


def _limit(operation: str, what: str, limit: Any) -> float:
    plain = _plain(limit)
    if isinstance(plain, bool) or not isinstance(plain, (int, float)) or not plain >= 0:
        raise ArgumentError(f"{operation}: {what} must be a number of at least 0, got {limit!r}")
    return float(plain)


# -- schedules ----------------------------------------------------------------------------------------------------------------


class Schedule(_Configured):
    """Base of the schedules: a learning rate that is a function of the step's number and of nothing else.

    ``at(k)`` is the learning rate after k steps (0: the first update), so a schedule can be drawn or tabulated before it is used.
    ``step()`` goes on by one and sets the optimiser's ``lr``; call it once after each ``optimizer.step()``, or once an epoch.

    Args:
        optimizer: its ``lr`` now is the base rate.

    Attributes:
        base_lr: the base rate.
        steps: how many steps have been taken.
        lr: ``at(steps)``.

    Raises:
        ArgumentError: for a setting outside its range.
    """

    base_lr = _at_least_0()
    steps = _whole(0)

    def __init__(self, optimizer: Optimizer, **settings: float) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(f"{type(self).__name__}: expected an optimiser first, got {type(optimizer).__name__}")
        self._configure(base_lr=optimizer.lr, steps=0, **settings)
        self.optimizer = optimizer
        optimizer.lr = self.lr

    def at(self, step: int) -> float:
        """The learning rate after this many steps."""
        raise NotImplementedError(f"{type(self).__name__}: a schedule needs a method at(self, step)")

    @property
    def lr(self) -> float:
        return self.at(self.steps)

    def step(self) -> None:
        """Go on by one step and set the optimiser's learning rate."""
        self.steps += 1
        self.optimizer.lr = self.lr

    def _chain(self) -> Iterator[tuple[tuple[str, ...], Schedule]]:
        """This schedule and those that follow it, with the paths of their states."""
        yield (), self

    def state_dict(self) -> dict[str, Any]:
        """The settings and how many steps were taken: numbers and text; what follows a warm-up is under "then"."""
        return {"kind": type(self).__name__, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a ``state_dict`` was taken, and set the optimiser's learning rate; nothing is changed unless everything fits.

        Raises:
            StateError: for the state of another schedule, and for entries that are missing or unexpected; all of them are named.
            ArgumentError: for a setting outside its range.
        """
        operation = f"{type(self).__name__}.load_state_dict"
        given = _entries(operation, state)
        _same_kind(operation, self, given)
        _same_paths(operation, given, _entries(operation, self.state_dict()))
        found = []
        for prefix, schedule in self._chain():
            _same_kind(operation, schedule, given, prefix)
            values = {name: given[*prefix, name] for name in schedule._declared()}
            found.append((schedule, schedule._checked(operation, values)))
        for schedule, settings in found:
            vars(schedule).update(settings)
        self.optimizer.lr = self.lr


class StepLR(Schedule):
    """The rate falls by a factor at regular intervals: at(k) = base · γ^⌊k / step_size⌋.

    Args:
        optimizer: see :class:`Schedule`.
        step_size: how many steps go at one rate.
        gamma: γ.

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> optimizer = optim.SGD([nn.Parameter([1.0])], lr=1.0)
        >>> schedule = optim.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> for _ in range(4):
        ...     optimizer.step()
        ...     schedule.step()
        >>> optimizer.lr, [schedule.at(k) for k in range(6)]
        (0.25, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25])
    """

    step_size = _whole(1)
    gamma = _at_least_0()

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer, step_size=step_size, gamma=gamma)

    def at(self, step: int) -> float:
        rate: float = self.base_lr * self.gamma ** (step // self.step_size)
        return rate


class CosineLR(Schedule):
    """The rate falls along half a cosine, slowly at both ends.

        at(k) = min_lr + ½ (base − min_lr) (1 + cos(π k / total_steps)),   min_lr from total_steps on

    Args:
        optimizer: see :class:`Schedule`.
        total_steps: when min_lr is reached. It stays there; PyTorch's CosineAnnealingLR rises again.
        min_lr: at most the base rate.

    Source:
        Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", eq. 5, without restarts.

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> schedule = optim.CosineLR(optim.SGD([nn.Parameter([1.0])], lr=1.0), total_steps=4)
        >>> [round(schedule.at(k), 4) for k in range(6)]
        [1.0, 0.8536, 0.5, 0.1464, 0.0, 0.0]
    """

    total_steps = _whole(1)
    min_lr = _at_least_0()

    def __init__(self, optimizer: Optimizer, total_steps: int, min_lr: float = 0.0) -> None:
        super().__init__(optimizer, total_steps=total_steps, min_lr=min_lr)

    @classmethod
    def _agree(cls, operation: str, settings: dict[str, Any]) -> None:
        if settings["min_lr"] > settings["base_lr"]:
            raise ArgumentError(f"{operation}: min_lr {settings['min_lr']} is above the base rate {settings['base_lr']}; a cosine falls")

    def at(self, step: int) -> float:
        if step >= self.total_steps:
            return float(self.min_lr)
        return float(self.min_lr + 0.5 * (self.base_lr - self.min_lr) * (1 + math.cos(math.pi * step / self.total_steps)))


class WarmUp(Schedule):
    """The rate rises in a straight line to the base rate, then goes on as another schedule says.

        at(k) = base · (start + (1 − start) k / warm_up_steps)   for k < warm_up_steps
        at(k) = then.at(k − warm_up_steps)                       from there on; base if nothing follows

    Args:
        optimizer: see :class:`Schedule`.
        warm_up_steps: how many updates go at less than the base rate.
        then: a fresh schedule of the same optimiser, which counts from the end of the warm-up. Step only the warm-up, which steps both.
        start: the factor of the first update, in [0, 1). By default 1 / (warm_up_steps + 1): every step rises by the same amount, and
            no update is lost to a rate of 0.

    Source:
        Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2 (gradual warm-up).

    Example:
        >>> from tinygrad_rnn import nn, optim
        >>> optimizer = optim.Adam([nn.Parameter([1.0])], lr=1.0)
        >>> schedule = optim.WarmUp(optimizer, 3, then=optim.CosineLR(optimizer, total_steps=4))
        >>> optimizer.lr, [round(schedule.at(k), 2) for k in range(8)]
        (0.25, [0.25, 0.5, 0.75, 1.0, 0.85, 0.5, 0.15, 0.0])
    """

    warm_up_steps = _whole(1)
    start = _fraction()

    def __init__(self, optimizer: Optimizer, warm_up_steps: int, then: Schedule | None = None, *, start: float | None = None) -> None:
        if then is not None and not isinstance(then, Schedule):
            raise ArgumentError(f"WarmUp: expected a schedule to follow, got {type(then).__name__}")
        if then is not None and (then.optimizer is not optimizer or then.steps):
            raise ArgumentError("WarmUp: what follows must be a fresh schedule of the same optimiser. Make it in the same call")
        count = WarmUp.warm_up_steps.checked("WarmUp", warm_up_steps)
        self.then = then
        super().__init__(optimizer, warm_up_steps=count, start=1 / (count + 1) if start is None else start)

    def at(self, step: int) -> float:
        if step >= self.warm_up_steps:
            return float(self.base_lr) if self.then is None else self.then.at(step - self.warm_up_steps)
        return float(self.base_lr * (self.start + (1 - self.start) * step / self.warm_up_steps))

    def _chain(self) -> Iterator[tuple[tuple[str, ...], Schedule]]:
        yield (), self
        if self.then is not None:
            yield from ((("then", *path), schedule) for path, schedule in self.then._chain())

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Schedule`."""
        return super().state_dict() | ({} if self.then is None else {"then": self.then.state_dict()})
