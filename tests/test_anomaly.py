"""detect_anomaly: the first backward multiplication that makes a NaN or an infinity, with everything needed to find it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.errors import AnomalyError
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.tensor import apply


def leaf(data, name=None):
    return tg.tensor(data, requires_grad=True, name=name)


def line() -> int:
    """The number of the line that calls this."""
    return inspect.currentframe().f_back.f_lineno


def test_names_the_multiplication():
    """The message has the operation, the multiplication, shapes, values, scope, step, and the line of the user's code."""
    x = leaf([4.0, 0.0, 1.0], name="x")
    with tg.detect_anomaly():
        with tg.scope("encoder"), tg.scope("cell", time=7):
            y, here = tg.sqrt(x), line()
        with pytest.raises(AnomalyError) as caught:
            (y * 2.0).sum().backward()
    message = str(caught.value)
    for part in (
        "an infinity first appears at sqrt, operand 0",
        "(scale)",
        "cotangent    shape (3,), from 2 to 2",
        "contribution shape (3,), entry (1,) is inf",
        "operand 0    shape (3,), from 0 to 4",
        "encoder/cell, step 7",
        f"{__file__}:{here}",
    ):
        assert part in message
    assert x.grad is None


@pytest.mark.parametrize("call", [lambda x: tg.sqrt(x), lambda x: np.sqrt(x), lambda x: x.sqrt(), lambda x: x**0.5, lambda x: x.norm(0.5)])
def test_source_is_the_users_line(call):
    """The line is the one that the user wrote, whether the operation was a function, NumPy's, a method or an operator."""
    x = leaf([0.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=f"{__file__}:"):
        call(x).sum().backward()


def test_first_in_the_order_of_the_pass():
    """Of several bad multiplications the one that runs first is named, not its consequences."""
    x = leaf([0.0], name="x")
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"infinity first appears at log,"):
        tg.log(tg.sqrt(x)).sum().backward()


def test_nan():
    """0 · inf in the backward pass is named as a NaN where it is made."""
    x = leaf([0.0])
    y = leaf([0.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"(?s)a NaN first appears at sqrt, .*from 0 to 0.*from inf to inf"):
        (tg.sqrt(x) * y).sum().backward()


def test_silent_without_it():
    """Without the switch, infinities pass as in PyTorch, without a warning."""
    x = leaf([0.0])
    tg.sqrt(x).sum().backward()
    assert x.grad.item() == np.inf


def test_seed_that_is_not_finite():
    """A loss whose cotangent was not finite is told apart from a multiplication that is to blame."""
    x = leaf([1.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"entered the backward pass was not finite"):
        (x * 2.0).backward([np.nan])


def test_forward_value_that_is_not_finite():
    """Where the forward pass overflowed, the message says so."""
    x = leaf([1000.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"the trouble began in the forward pass"):
        tg.exp(x).sum().backward()


def test_source_unknown():
    """Without the switch around the forward pass the line is unknown, and the message says how to get it."""
    x = leaf([0.0])
    y = tg.sqrt(x).sum()
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"run the forward pass inside detect_anomaly"):
        y.backward()


def test_record_sources():
    """record_sources gives observers the line of each step, without the checks."""
    x = leaf([0.0])
    with tg.record_sources():
        y, here = np.tanh(x), line()
    steps = []
    y.backward(observers=[steps.append])
    assert steps[0].source == f"{__file__}:{here}"


def test_inside_an_opaque_kernel():
    """A fused kernel is opened, so that the multiplication inside it is named, with its line."""
    kernel = Opaque(
        lambda x: (np.sqrt(x) * 2.0, None),
        name="kernel",
        definition=lambda x: tg.sqrt(x) * 2.0,
        joint_pullback=lambda g, out, residual, needed, x: (2.0 * g / np.sqrt(x),),
    )
    x = leaf([0.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=rf"(?s)appears at sqrt.*{__file__}:"):
        apply(kernel, (x,)).sum().backward()


def test_inside_a_checkpoint():
    """The recomputed inside of a checkpoint is checked too."""
    x = leaf([0.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"appears at sqrt"):
        tg.checkpoint(lambda a: tg.sqrt(a) * 3.0, x).sum().backward()


def test_index_edges_are_checked():
    """The pullback of an index, which is added in place, is checked like any other."""
    x = leaf([1.0, 2.0])
    with tg.detect_anomaly(), pytest.raises(AnomalyError, match=r"appears at index"):
        x[0].backward(np.inf)


def test_second_order():
    """In a pass that is recorded, and in the pass through that record, the first bad multiplication is named."""
    x = leaf([0.0])
    with tg.detect_anomaly():
        (dx,) = tg.grad((x**1.5).sum(), x, create_graph=True)
        with pytest.raises(AnomalyError, match=f"{__file__}:"):
            tg.grad(dx.sum(), x)


def test_finite_gradients_pass():
    """Where nothing is wrong the gradient is the usual one."""
    x = leaf([1.0, 2.0])
    with tg.detect_anomaly():
        (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.value, [2.0, 4.0])


def test_what_a_hook_puts_in_and_sums_that_overflow_are_found():
    """A NaN from a hook and an overflow in the sum of finite contributions are anomalies too."""
    with tg.detect_anomaly():
        x = tg.tensor([1.0], requires_grad=True)
        y = x * 2.0
        y.register_hook(lambda cotangent: cotangent * np.nan)
        with pytest.raises(AnomalyError, match="a hook replaced it"):
            y.sum().backward()
        z = tg.tensor([1.0], requires_grad=True)
        with pytest.raises(AnomalyError, match="their sum overflowed"):
            (z * 1e308 + z * 1e308).sum().backward()
