"""Tools to check derivatives: of your own functions, and of your own primitives.

``gradcheck`` and ``gradgradcheck`` need nothing but NumPy; ``strategies`` draws examples with Hypothesis and is the only room that
imports it.
"""

from __future__ import annotations

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
