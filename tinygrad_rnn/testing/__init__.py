"""Tools to check derivatives: of your own functions, primitives, cells and layers, and of backward passes written by hand.

===================  ===============================================================================================================
gradcheck            first derivatives in every entry: reverse mode, forward mode and the complex step or differences agree
gradgradcheck        second derivatives likewise
check_backward       where did my hand derivation go wrong? names the mistake in a NumPy backward function, if the numbers prove it
laws                 what must be true whatever is computed: ``laws.check(anything, *inputs)``, or one law at a time
strategies           Hypothesis strategies: arrays, Tensors, index expressions, random programs, cells, layers, sequences
programs             random programs without Hypothesis, from a seed
===================  ===============================================================================================================

All of it raises, or is made to raise by ``.check()``, :class:`GradcheckError`, which is an AssertionError: in a test nothing else is
needed. Tolerances are relative and keyword-only, and so are seeds.

There is no pytest plugin, on purpose. A plugin would be loaded with every run of pytest in every project that shares the environment, and
with it NumPy and this package; and a fixture for ``rtol`` or ``seed`` would say from afar what the keyword says on the spot. Seed and
profile of Hypothesis have options of its own plugin (``--hypothesis-seed``, ``--hypothesis-profile``).

``strategies`` is the only room that imports Hypothesis, when it is named (``pip install "tinygrad_rnn[test]"``); the rest needs nothing
but NumPy.

Example:
    A hand-written backward pass in a test:

    >>> import numpy as np
    >>> from tinygrad_rnn import testing
    >>> def forward(x, w):
    ...     y = np.tanh(x @ w)
    ...     return y, (x, w, y)
    >>> def backward(dy, cache):
    ...     x, w, y = cache
    ...     da = dy * (1 - y**2)
    ...     return da @ w.T, x.T @ dy                       # the second one forgets tanh's derivative
    >>> rng = np.random.default_rng(0)
    >>> report = testing.check_backward(forward, backward, rng.normal(size=(2, 3)), rng.normal(size=(3, 4)))
    >>> print(report.gradients[1].explanation.partition(" (line")[0])
    the derivative of tanh, ⊙ (1 − y²), is missing here: it begins with dy where d(x @ w) belongs, from x @ w to w
    >>> report.check()
    Traceback (most recent call last):
    ...
    tinygrad_rnn.testing.reproduction.GradcheckError: check_backward...
"""

from __future__ import annotations

import importlib
from typing import Any

from . import laws, programs
from .checks import gradcheck, gradgradcheck
from .handwritten import BackwardReport, CheckedGradient, check_backward
from .reproduction import GradcheckError

__all__ = [
    "BackwardReport",
    "CheckedGradient",
    "GradcheckError",
    "check_backward",
    "gradcheck",
    "gradgradcheck",
    "laws",
    "programs",
]


def __getattr__(name: str) -> Any:
    """The strategies are loaded when they are first named: they need Hypothesis."""
    if name == "strategies":
        return importlib.import_module(f"{__name__}.strategies")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
