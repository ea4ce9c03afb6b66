"""Recurrences that no layer of the package has: the instruments against complex steps, closed forms and plain NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.flow import bptt, relay, stacks
from tinygrad_rnn.linear_maps import Route
from tinygrad_rnn.primitive import PRIMITIVES, primitive

random = np.random.default_rng(0)
W, V = 0.4 * random.normal(size=(2, 3, 3))
A = 0.5 * random.normal(size=(2, 4))
X = random.normal(size=(8, 1, 3))
ROW = (1, 3)

Step = Callable[..., tuple[Any, ...]]
"""(state …, input) → state …, on Tensors and on complex arrays."""


def from_the_left(h: Any, x: Any) -> tuple[Any, ...]:
    """A vector: the matrix stands on the left."""
    return (np.tanh(W @ h + x[0]),)


def of_columns(h: Any, x: Any) -> tuple[Any, ...]:
    """Each column is a state."""
    return (np.tanh(W @ h),)


def of_two_matrices(h: Any, x: Any) -> tuple[Any, ...]:
    return (np.tanh(h @ W @ V + x),)


def doubled(h: Any, x: Any) -> tuple[Any, ...]:
    product = h @ W
    return (np.tanh(product + product + x),)


def descending(h: Any, x: Any) -> tuple[Any, ...]:
    """One step down a gradient that is itself differentiated."""
    u = np.tanh(h[:, :2] @ A)
    if isinstance(h, tg.Tensor):
        return (h - 0.5 * tg.grad((u * u).sum(), h, create_graph=True)[0] + x,)
    return (h - 0.5 * np.concatenate([(2 * u * (1 - u * u)) @ A.T, np.zeros((1, 1))], axis=1) + x,)


def descending_through_a_matrix(h: Any, x: Any) -> tuple[Any, ...]:
    return (descending(h, x)[0] @ W,)


def beside_the_descent(h: Any, x: Any) -> tuple[Any, ...]:
    """Of the gradient only the column is read that is always 0."""
    return (np.concatenate([np.tanh(h[:, :2]), descending(h, x)[0][:, 2:] - h[:, 2:]], axis=1),)


def of_a_first_row(h: Any, x: Any) -> tuple[Any, ...]:
    return (0.9 * np.tanh(h[:1, :]) + x,)


def of_one_in_a_stack(h: Any, x: Any) -> tuple[Any, ...]:
    """Of two values that are stacked, one is read."""
    return (np.stack([np.tanh(h @ W + x), np.sin(h @ V)])[0],)


def apart(h: Any, c: Any, x: Any) -> tuple[Any, ...]:
    """Two recurrences that have nothing to do with each other, on batches of their own."""
    return np.tanh(h @ W), 0.9 * c


def on_two_ways(h: Any, x: Any) -> tuple[Any, ...]:
    """A value that is read through a sum and through a matrix."""
    scaled = 0.9 * h
    aside = scaled @ V
    return (np.tanh((scaled + x) @ W + aside),)


def of_ranges(h: Any, x: Any) -> tuple[Any, ...]:
    """Ranges of both axes."""
    return (np.concatenate([np.tanh(h[:1, 1:]), h[:, :1] * 0.5], axis=1) + x,)


def leaking(h: Any, x: Any) -> tuple[Any, ...]:
    return (0.5 * h + np.tanh(x),)


def forgetful(h: Any, x: Any) -> tuple[Any, ...]:
    """No state reaches the next one."""
    return (np.tanh(0.5 * x),)


def remembering_beside(h: Any, c: Any, x: Any) -> tuple[Any, ...]:
    """The hidden state is read from the cell before, and nothing is read from it."""
    return np.tanh(c @ W), 0.5 * c + x


def of_a_row_for_all(h: Any, c: Any, x: Any) -> tuple[Any, ...]:
    """A cell that the two sequences of a batch share."""
    return np.tanh(h @ W + c), 0.9 * c + 0.1 * h[:1]


def ran(step: Step, shapes: Any = (ROW,), roles: tuple[str, ...] = ("hidden",), steps: int = 5) -> tuple[list[Any], list[Any]]:
    """All states by step, and the initial ones; the inputs take part in the backward pass."""
    w = tg.tensor(np.ones(()), requires_grad=True)
    initial = [tg.tensor(np.full(shape, 0.1 * (k + 1)), requires_grad=True) for k, shape in enumerate(shapes)]
    states = []
    for t in range(1, steps + 1):
        with tg.scope("own", time=t):
            made = step(*(states[-1] if states else initial), X[(t - 1) % len(X)] * w)
            states.append([tg.landmark(part, role[0], role) for part, role in zip(made, roles, strict=True)])
    return states, initial


def traced(*arguments: Any, **options: Any) -> tg.Trace:
    """The trace of the sum of all squares."""
    states, _ = ran(*arguments, **options)
    return tg.trace(sum((part * part).sum() for parts in states for part in parts))


# -- step Jacobians ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "shapes", "roles"),
    [
        (from_the_left, ((3,),), ("hidden",)),
        (of_two_matrices, (ROW,), ("hidden",)),
        (doubled, (ROW,), ("hidden",)),
        (descending, (ROW,), ("hidden",)),
        (descending_through_a_matrix, (ROW,), ("hidden",)),
        (beside_the_descent, (ROW,), ("hidden",)),
        (of_a_first_row, (ROW,), ("hidden",)),
        (of_one_in_a_stack, (ROW,), ("hidden",)),
        (on_two_ways, (ROW,), ("hidden",)),
        (of_ranges, (ROW,), ("hidden",)),
        (leaking, (ROW,), ("cell",)),
        (forgetful, (ROW,), ("hidden",)),
        (remembering_beside, (ROW, ROW), ("hidden", "cell")),
    ],
)
def test_each_step_jacobian_is_what_the_complex_step_says(step: Step, shapes: Any, roles: Any) -> None:
    """Whatever stands between two states: matrices on either side, ranges, sums of ways, gradients, and nothing at all."""
    ledger = traced(step, shapes, roles)
    found, states = flow.step_jacobians(ledger), ledger.states()
    assert list(found.time) == [2, 3, 4, 5]
    for jacobian, t in zip(found.jacobian[:, 0], found.time, strict=True):
        past = np.concatenate([part.value.ravel() for part in states[int(t) - 1].parts])
        moved = past + 1e-30j * np.eye(past.size)
        after = [step(*(part.reshape(shapes[0]) for part in np.split(one, len(roles))), X[t - 1]) for one in moved]
        expected = np.stack([np.concatenate([part.imag.ravel() for part in parts]) / 1e-30 for parts in after], axis=1)
        np.testing.assert_allclose(jacobian, expected, rtol=1e-12, atol=1e-15)


def test_states_that_do_not_fit_together_are_refused() -> None:
    """Parts of several shapes have no Jacobian (S, S); a step of which only a gate was marked is named."""
    with pytest.raises(ArgumentError) as caught:
        flow.step_jacobians(traced(of_a_row_for_all, ((2, 3), ROW), ("hidden", "cell")))
    assert str(caught.value) == (
        "step_jacobians: expected states of one shape, (B, H), got (1, 3) and (2, 3) in 'own'. Mark only parts of one shape with "
        "tg.landmark"
    )
    for marked, message in (
        ((1, 2, 4), "step 3 of 'own' has a gate, but neither a hidden state nor a cell; mark one in every step with tg.landmark"),
        ((), "'own' has no two steps with a state; expected at least two. Trace a loss that reads its last state"),
    ):
        h = tg.tensor(np.ones(ROW), requires_grad=True)
        for t in range(1, 5):
            with tg.scope("own", time=t):
                h = tg.landmark(tg.sigmoid(h @ W), "g", "gate") * h
                h = tg.landmark(h, "h", "hidden") if t in marked else h
        ledger = tg.trace(h.sum())
        with pytest.raises(ArgumentError) as caught:
            flow.step_jacobians(ledger)
        assert str(caught.value) == f"step_jacobians: {message}"
        if marked:
            with pytest.raises(ArgumentError) as caught:
                flow.vanishing_product(ledger)
            assert str(caught.value) == f"vanishing_product: {message}"


# -- the vanishing product --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_a_step_is_split_only_where_one_diagonal_and_one_matrix_make_it_up(keep: Any) -> None:
    """gain = saturation · weight where the split is made; two matrices, or one that counts twice, have none, and no bound of one alone."""
    for step, splits in ((lambda h, x: (np.tanh(h @ W + x),), True), (of_two_matrices, False), (doubled, False), (on_two_ways, False)):
        states, _ = ran(step)
        found = flow.vanishing_product(tg.trace(states[-1][0].sum(), keep=keep))
        if splits:
            np.testing.assert_allclose((found.saturation * found.weight)[1:], found.gain[1:], rtol=1e-12)
            if keep == "arrays":
                assert found.spectral_radius == pytest.approx(np.abs(np.linalg.eigvals(W)).max())
        else:
            assert np.isnan(found.saturation).all() and np.isnan(found.weight).all()
            assert math.isnan(found.spectral_radius) and np.isnan(found.log10_bound).all()


def test_states_with_and_without_a_hidden_part() -> None:
    """A cell that is halved at each step loses half of its gradient; the hidden states beside it, which nothing reads, say nothing."""
    for shapes, roles, step in ((ROW,), ("cell",), leaking), ((ROW, ROW), ("hidden", "cell"), remembering_beside):
        states, initial = ran(step, shapes, roles, steps=6)
        ledger = tg.trace(states[-1][-1].sum())
        found = flow.vanishing_product(ledger)
        np.testing.assert_allclose(found.gain[1:], 0.5, rtol=1e-12)
        np.testing.assert_allclose(flow.highway(ledger).log10_total, np.arange(6) * math.log10(0.5), rtol=1e-12)
        assert found.edges[0].label == "⊙ 0.5" and found.edges[0].share == pytest.approx(1.0)
        (gradient,) = tg.grad(states[-1][-1].sum(), initial[-1])
        np.testing.assert_allclose(gradient.value, 0.5**6)


@pytest.mark.parametrize("role", [0, 1])
def test_ways_that_begin_at_one_part_of_the_state(role: int) -> None:
    """Where only one part of the last state is read, what is handed back is what flows from there, also where no range is lost."""
    for scale in (1.0, 1e-300):
        states, initial = ran(remembering_beside, (ROW, ROW), ("hidden", "cell"), steps=4)
        loss = (states[-1][role] * scale).sum()
        found = flow.vanishing_product(tg.trace(loss))
        cells = [initial[1], *(cell for _, cell in states)]
        norms = [np.linalg.norm(g.value / scale) for g in tg.grad(loss, cells[:0:-1], allow_unused=True)]
        norms = [norm for norm in norms if norm] if role == 0 else norms
        start = np.sqrt(3.0)
        np.testing.assert_allclose(10**found.log10_product * start, ([start] if role == 0 else []) + norms, rtol=1e-9)


@pytest.mark.parametrize(
    ("step", "shapes", "roles"),
    [
        (remembering_beside, (ROW, ROW), ("hidden", "cell")),
        (apart, ((2, 3), ROW), ("hidden", "cell")),
        (of_columns, ((3, 2),), ("hidden",)),
        (of_one_in_a_stack, (ROW,), ("hidden",)),
        (of_a_first_row, (ROW,), ("hidden",)),
    ],
)
def test_what_each_step_hands_back(step: Step, shapes: Any, roles: Any) -> None:
    """‖what step t hands to t − 1‖ over ‖δ_t‖, with a loss at every step, against one pullback through each step alone."""
    states, _ = ran(step, shapes, roles)
    ledger = tg.trace(sum((part * part).sum() for parts in states for part in parts))
    found, at = flow.vanishing_product(ledger), ledger.states()
    assert found.several
    for k, t in enumerate(found.time[:-1], 1):
        past = [tg.tensor(part.value, requires_grad=True) for part in states[t - 2]]
        carried = {role: getattr(at[t], role).carried for role in roles if getattr(at[t], role) is not None}
        made = [(part, carried[role]) for part, role in zip(step(*past, X[t - 1]), roles, strict=True) if carried.get(role) is not None]
        handed = tg.grad([part for part, _ in made], past, [cotangent for _, cotangent in made], allow_unused=True)
        norms = [np.linalg.norm([np.linalg.norm(values) for values in some]) for some in ([g.value for g in handed], carried.values())]
        assert found.handed_back[k] == pytest.approx(norms[0] / norms[1], rel=1e-12)


@pytest.mark.parametrize(("scale", "digits"), [(1e-300, 1e-12), (1e-310, 1e-9), (1e-318, 0.1)])
def test_what_is_handed_back_at_the_end_of_the_range_of_floats(scale: float, digits: float) -> None:
    """What the last step sends is carried at a length of 1, also where one over its length is no float, and only along ways it takes."""
    found = {}
    for factor in (1.0, scale):
        states, _ = ran(remembering_beside, (ROW, ROW), ("hidden", "cell"))
        found[factor] = flow.vanishing_product(tg.trace(sum((hidden * factor).sum() for hidden, _ in states))).handed_back
    assert found[scale][1] == pytest.approx(found[1.0][1], rel=digits)
    np.testing.assert_allclose(found[scale][2:], 0.5, rtol=digits)  # what came to the cell is halved from step to step


def test_a_highway_that_is_not_finite() -> None:
    """A cotangent that is no number has no rate, and the table says so."""
    outputs, _ = nn.LSTM(2, 3, rng=0)(np.ones((5, 1, 2)))
    found = flow.highway(tg.trace(outputs[-1].sum(), cotangent=np.nan))
    assert str(found).startswith("lstm: highway through cell, not finite\n") and math.isnan(found.half_life)


def test_a_loss_that_reads_a_gate_of_the_last_step() -> None:
    """The last step has a gate, but nothing reads its state: the walk begins at the step before, and the gains are those of the norms."""
    _, _, parts = nn.LSTM(2, 3, rng=0)(np.ones((5, 1, 2)), return_gates=True)
    ledger = tg.trace(parts["forget"][-1].sum())
    states, found = ledger.states(), flow.vanishing_product(ledger)
    assert states[5].parts == () and list(states[5].gates) == ["forget"]
    assert list(found.time) == [4, 3, 2, 1]
    np.testing.assert_allclose(found.gain[1:], [states[t].norm / states[t + 1].norm for t in (3, 2, 1)], rtol=1e-12)


def test_growth_is_told_by_the_edge_that_gains_most() -> None:
    """An exploding product names where most is gained, a vanishing one where most is lost."""
    for radius, word in ((1.6, "most is gained at · W_hhᵀ"), (0.4, "most is lost at · W_hhᵀ")):
        outputs, _ = nn.RNN(1, 8, init=radius, bias=False, rng=0)(np.zeros((9, 1, 1)))
        assert word in str(flow.vanishing_product(tg.trace(outputs[-1].sum())))


def test_a_loss_that_sends_nothing_back() -> None:
    """A cotangent of zero at every step has no product."""
    outputs, _ = nn.RNN(1, 2, rng=0)(np.ones((4, 1, 1)))
    with pytest.raises(ArgumentError) as caught:
        flow.vanishing_product(tg.trace((outputs * 0.0).sum()))
    assert str(caught.value) == "vanishing_product: no gradient reached any step of 'rnn'; trace a loss that depends on its output"


def test_where_an_edge_was_recorded() -> None:
    """Files of this package and of the working directory are shown without their folder, others whole, and nothing where none is known."""
    states, _ = ran(leaking)
    edge = flow.vanishing_product(tg.trace(states[-1][0].sum())).edges[0]
    assert replace(edge, source="/elsewhere/cells.py:3").place == "/elsewhere/cells.py:3"
    assert replace(edge, source=f"{relay._HOME}/cells.py:3").place == "cells.py:3"
    assert replace(edge, source=None).place is None
    assert replace(edge, source=None).table().rows[0][-1] == "–"


# -- what is wrong with it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "advice"), [(0.2, "a recurrence with a highway: nn.LSTM, nn.GRU"), (3.0, "clip_grad_norm")], ids=["vanishes", "explodes"]
)
def test_without_a_highway(scale: float, advice: str) -> None:
    """Where two matrices stand between the states no single one is to blame: there is no highway, and the remedy fits the direction."""
    states, _ = ran(lambda h, x: (scale * (h @ np.eye(3) @ np.eye(3)) + x,), steps=8)
    finding = flow.diagnose(tg.trace(states[-1][0].sum())).findings[0]
    assert ". There is no highway." in f"{finding.what}." and finding.advice == advice
    assert finding.number == pytest.approx(7 * math.log10(scale))


def test_a_highway_without_gates() -> None:
    """Its factor is told, and no gate's mean."""
    states, _ = ran(lambda h, x: (0.25 * h + np.tanh(x),), steps=8)
    finding = flow.diagnose(tg.trace(states[-1][0].sum())).findings[0]
    assert "The highway alone multiplies by 0.25 per step" in finding.what and "(mean" not in finding.what
    assert finding.number == pytest.approx(7 * math.log10(0.25))


def test_a_seed_that_is_not_finite() -> None:
    """What enters the backward pass as an infinity is not blamed on a multiplication."""
    x = tg.tensor([1.0], requires_grad=True)
    finding = flow.diagnose(tg.trace((x * 2.0).sum(), cotangent=np.inf)).findings[0]
    assert finding.what == "a cotangent that is not finite arrives at sum: it entered the backward pass so"


def test_relus_that_fire_are_no_finding() -> None:
    """A unit that fires for one sequence is taught by it."""
    x = tg.tensor([[1.0, -1.0], [-1.0, 1.0]], requires_grad=True)
    alive, dead = (flow.diagnose(tg.trace(tg.relu(x + shift).sum())).findings for shift in (0.0, -2.0))
    assert not [finding for finding in alive if "ReLU" in finding.what]
    assert dead[0].what == "2 of 2 ReLU units never fire in this batch, so nothing teaches them: units 0, 1"


# -- entries of backpropagation through time ----------------------------------------------------------------------------------------


def losses_of(weight: Any, steps: int = 6, used: Any = None) -> list[Any]:
    """The squared states of h ← tanh(h W + 1), with W made anew at every step that uses it."""
    h, found = tg.tensor(np.full((2, 3), 0.1)), []
    for t in range(1, steps + 1):
        with tg.scope("own", time=t):
            h = np.tanh(h @ weight() + 1.0) if used is None or t in used else np.tanh(h + 1.0)
            h = tg.landmark(h, "h", "hidden") if h.requires_grad else h
        found.append((h * h).sum())
    return found


@pytest.mark.parametrize(
    ("start", "made"),
    [
        (W, lambda w: tg.concatenate([w[:1], w[1:]])),
        (W.T, lambda w: tg.concatenate([w[:, :2], w[:, 2:]], axis=1).T),
        (W.ravel(), lambda w: w.reshape(3, 3)),
        (W[None], lambda w: w[0]),
    ],
    ids=["joined", "joined and transposed", "flat", "one of several"],
)
def test_a_weight_that_is_put_together_anew_in_every_step(start: Any, made: Any, monkeypatch: Any) -> None:
    """Its entries have the norms of those of the plain weight, also where they are summed up a few losses at a time."""
    plain, weight = tg.tensor(W, requires_grad=True), tg.tensor(start, requires_grad=True)
    expected = flow.bptt_matrix(losses_of(lambda: plain), plain)
    assert expected.gates == ("all",)
    for entries in (bptt.ENTRIES, 1):
        monkeypatch.setattr(bptt, "ENTRIES", entries)
        found = flow.bptt_matrix(losses_of(lambda: made(weight)), weight)
        np.testing.assert_allclose(found.norm, expected.norm, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(np.linalg.norm(found.entry(5, 2)), expected.norm[4, 1], rtol=1e-12)
    both = flow.bptt_matrix(losses_of(lambda: 0.5 * (made(weight) @ np.eye(3)) + 0.5 * made(weight)), weight)  # two uses in a step
    np.testing.assert_allclose(both.norm, expected.norm, rtol=1e-12, atol=1e-15)


def test_uses_in_one_step_that_different_losses_read(monkeypatch: Any) -> None:
    """Entries are those of one loss alone, also where they are summed up for one loss at a time."""
    weight = tg.tensor(W, requires_grad=True)
    losses = losses_of(lambda: weight, steps=3)
    with tg.scope("own", time=1):
        aside = np.tanh(np.ones((2, 3)) @ weight)
    losses[-1] = losses[-1] + aside.sum()
    for entries in (bptt.ENTRIES, 1):
        monkeypatch.setattr(bptt, "ENTRIES", entries)
        found = flow.bptt_matrix(losses, weight)
        for k, loss in enumerate(losses):
            alone = flow.bptt_matrix([loss], weight, times=[k + 1])
            np.testing.assert_allclose(found.norm[k, : len(alone.time)], alone.norm[0], rtol=1e-12)
        np.testing.assert_allclose(
            sum(found.entry(t, s) for t in (1, 2, 3) for s in (1, 2, 3)), tg.grad(losses, weight)[0].value, rtol=1e-12
        )


def test_distances_that_do_not_occur_have_no_row() -> None:
    """A weight that is used at steps 1 and 4, and read at step 6, has pairs of distance 5 and 2 alone."""
    weight = tg.tensor(W, requires_grad=True)
    found = flow.bptt_matrix(losses_of(lambda: weight, used=(1, 4))[-1:], weight, times=[6])
    assert list(found.time) == [1, 4] and [row[:2] for row in found.table().rows] == [("2", "1"), ("5", "1")]


def test_connectivity_of_no_steps() -> None:
    """Outputs of no steps depend on nothing; the matrix is empty on that side."""
    x = tg.tensor(np.ones((0, 2, 3)), requires_grad=True)
    assert flow.connectivity(np.tanh(x), x).norm.shape == (0, 0)
    x = tg.tensor(np.ones((4, 2, 3)), requires_grad=True)
    assert flow.connectivity(np.tanh(x)[:0], x).norm.shape == (0, 4)


# -- edges ------------------------------------------------------------------------------------------------------------------------


def test_a_step_with_scopes_inside_is_drawn_once() -> None:
    """All edges of a step are blocked or none, however deep they were recorded: h ← 2 h + 3 h passes 5 or nothing, never 2 or 3."""
    passed = set()
    for seed in range(20):
        start = tg.tensor(1.0, requires_grad=True)
        with tg.scope("own", time=1):
            near = 2.0 * start
            with tg.scope("inner"), tg.scope("deeper"):
                far = 3.0 * start
            out = near + far
        out.backward(interventions=[flow.block(flow.edges(kind="scale"), p=0.5, rng=seed)])
        passed.add(start.grad.item())
    assert passed == {0.0, 5.0}


def test_what_is_no_predicate_joins_no_edges() -> None:
    """Python's own error names both sides."""
    for sign, join in (("&", lambda: flow.recurrent() & 3), ("|", lambda: flow.recurrent() | 3)):
        with pytest.raises(TypeError) as caught:
            join()
        assert str(caught.value) == f"unsupported operand type(s) for {sign}: 'Edges' and 'int'"


def test_a_routing_of_ones_own_goes_its_way_on_stacks() -> None:
    """A primitive whose map is written with plain functions hands back every entry of a stack as it does one."""

    @primitive(name="turned about")
    def turned(x: Any) -> Any:
        return x[::-1]

    try:
        turned.defrule(lambda out, x: (Route(lambda u: u[::-1], lambda g: g[::-1], "turned"),))
        x = tg.tensor(np.arange(3.0), requires_grad=True)
        (step,) = tg.trace((y := turned(x)), cotangent=np.ones(3)).steps
        arrived, values = stacks.Stack((3,)), np.arange(6.0).reshape(2, 3)
        stacks.pull(step.map, stacks.Stack(y.shape, {None: stacks.Slab(0, values)}), arrived)
        np.testing.assert_array_equal(arrived.array(2), values[:, ::-1])
    finally:
        del PRIMITIVES["turned about"]
