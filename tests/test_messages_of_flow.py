"""What instruments and traces say, word for word: what was expected, what came, and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from messages import Row, word_for_word

import tinygrad_rnn as tg
from tinygrad_rnn import flow, nn
from tinygrad_rnn.errors import ArgumentError, GraphError


def ran(kind: Any = nn.LSTM) -> tg.Tensor:
    """The outputs of three steps."""
    outputs: tg.Tensor = kind(1, 2, rng=0)(np.ones((3, 1, 1)))[0]
    return outputs


def traced(kind: Any = nn.LSTM, **options: Any) -> tg.Trace:
    return tg.trace(ran(kind)[-1].sum(), **options)


def losses() -> tuple[list[tg.Tensor], nn.LSTM]:
    """One per step, and the layer."""
    layer = nn.LSTM(1, 2, rng=0)
    outputs, _ = layer(np.ones((3, 1, 1)))
    return [outputs[t].sum() for t in range(3)], layer


def matrix() -> flow.BpttMatrix:
    several, layer = losses()
    return flow.bptt_matrix(several, layer.weight_hh_l0)


def used_outside() -> tuple[list[tg.Tensor], tg.Tensor]:
    """A loss that uses a weight in no step."""
    w = tg.tensor([1.0], requires_grad=True, name="w")
    return [(w * 2.0).sum()], w


leaf = tg.tensor([1.0], requires_grad=True, name="v")


SAID: list[Row] = [
    (
        lambda: matrix().entry(7, 1),
        ArgumentError,
        "entry: there is no loss at step 7; expected one of [1, 2, 3]",
    ),
    (
        lambda: matrix().entry(1, 7),
        ArgumentError,
        "entry: there is no use at step 7; expected one of [1, 2, 3]",
    ),
    (
        lambda: matrix().entry(1, 1, gate="memory"),
        ArgumentError,
        "entry: there is no block 'memory'; expected one of input, forget, candidate, output",
    ),
    (
        lambda: flow.bptt_matrix(*used_outside()),
        ArgumentError,
        "bptt_matrix: w is used in no step of a sequence; expected a weight that a recurrence shares. Name "
        "the steps of your own loop with tg.scope(time=t)",
    ),
    (
        lambda: flow.bptt_matrix(losses()[0][0], losses()[1].weight_hh_l0),
        ArgumentError,
        "bptt_matrix: expected a sequence of scalar Tensors, one per loss; split one Tensor with [l for l in losses]",
    ),
    (
        lambda: flow.bptt_matrix([ran()[0]], leaf),
        ArgumentError,
        "bptt_matrix: expected loss 0 to be a scalar Tensor with a graph, got shape (1, 2). Use .sum() or .mean()",
    ),
    (
        lambda: flow.bptt_matrix([tg.tensor(1.0)], leaf),
        ArgumentError,
        "bptt_matrix: expected loss 0 to be a scalar Tensor with a graph, got shape () without a graph. Use .sum() or .mean()",
    ),
    (
        lambda: flow.bptt_matrix([3.0], leaf),
        ArgumentError,
        "bptt_matrix: expected loss 0 to be a scalar Tensor with a graph, got float. Use .sum() or .mean()",
    ),
    (
        lambda: flow.bptt_matrix(losses()[0], "weight_hh_l0"),
        ArgumentError,
        "bptt_matrix: expected the parameter to be a Tensor, such as layer.weight_hh_l0, got str. Pass the weight itself",
    ),
    (
        lambda: flow.bptt_matrix(losses()[0], leaf),
        ArgumentError,
        "bptt_matrix: the losses do not depend on the parameter. trace: expected a Tensor that the loss was "
        "computed from, got v. It takes no part, requires no gradient, or was given a new value since; trace "
        "before the optimiser's step",
    ),
    (
        lambda: flow.bptt_matrix(losses()[0], losses()[1].weight_hh_l0, times=[1]),
        ArgumentError,
        "bptt_matrix: the losses do not depend on the parameter. trace: expected a Tensor that the loss was "
        "computed from, got W_hh. It takes no part, requires no gradient, or was given a new value since; "
        "trace before the optimiser's step",
    ),
    (
        lambda: flow.step_jacobians(traced(keep="norms")),
        ArgumentError,
        "step_jacobians: expected a trace with keep='arrays', got keep='norms'. Trace again with arrays",
    ),
    (
        lambda: flow.step_jacobians(3),
        ArgumentError,
        "step_jacobians: expected a loss (a Tensor) or its trace, got int",
    ),
    (
        lambda: flow.highway(tg.trace((ran() * 0.0).sum())),
        ArgumentError,
        "highway: no gradient reached any cell state of 'lstm'; trace a loss that depends on it",
    ),
    (
        lambda: flow.block(3),
        ArgumentError,
        "block: where must be a function of a BackwardStep, got int. flow.edges(…) makes one",
    ),
    (
        lambda: flow.scale(flow.recurrent(), "a"),
        ArgumentError,
        "scale: factor must be a finite number, got 'a'",
    ),
    (
        lambda: flow.block(flow.recurrent(), p=2.0),
        ArgumentError,
        "block: p must be a probability, a number from 0 to 1, got 2.0",
    ),
    (
        lambda: flow.block(flow.recurrent(), p=0.5, rng="seed"),
        ArgumentError,
        "block: rng must be a numpy.random.Generator, a seed of at least 0, or None, got 'seed'",
    ),
    (
        lambda: flow.force_gate(3, 1.0),
        ArgumentError,
        "force_gate: gate must be a name such as 'forget', got 3",
    ),
    (
        lambda: ran()[-1].sum().backward(interventions=[flow.force_gate("forget", np.ones(7))]),
        ArgumentError,
        "force_gate: value has shape (7,); the forget gate has (1, 2) at ⊙ f₃. Give a number, or an array that broadcasts to it",
    ),
    (
        lambda: flow.compare(ran()[-1].sum(), 3),
        ArgumentError,
        "compare: expected interventions such as flow.block(flow.recurrent()), got int",
    ),
    (
        lambda: flow.monitor(nn.LSTMCell(1, 2, rng=0)),
        ArgumentError,
        "monitor: expected an nn.RNN, nn.LSTM or nn.GRU, got LSTMCell. A cell has no kernel: trace it",
    ),
    (
        lambda: flow.monitor(nn.LSTM(1, 2, rng=0), to="/nowhere/rows.jsonl"),
        ArgumentError,
        "monitor: expected to= to be a function or the path of a file in an existing folder, got "
        "'/nowhere/rows.jsonl', in a folder that does not exist: '/nowhere'",
    ),
    (
        lambda: flow.monitor(nn.LSTM(1, 2, rng=0), to="/"),
        ArgumentError,
        "monitor: expected to= to be a function or the path of a file in an existing folder, got '/', a folder",
    ),
    (
        lambda: flow.monitor(nn.LSTM(1, 2, rng=0), to=3),
        ArgumentError,
        "monitor: expected to= to be a function or the path of a file in an existing folder, got int",
    ),
    (
        lambda: flow.omega(tg.tensor(1.0, requires_grad=True) * 2.0),
        ArgumentError,
        "omega: no layer left landmarks. Give a loss that depends on a recurrent layer's outputs",
    ),
    (
        lambda: flow.omega(ran()[-1].sum(), immediate=True),
        ArgumentError,
        "omega: immediate=True holds the states constant, which says what W_hh does in an RNN alone; here '⊙ "
        "f₃' crosses from step to step as well. Use immediate=False",
    ),
    (
        lambda: flow.through("memory"),
        ArgumentError,
        "through: expected a gate, one of input, forget, candidate, output, reset, update, got 'memory'",
    ),
    (
        lambda: flow.split_paths(traced(), traced().states()[1].cell),
        ArgumentError,
        "split_paths: expected a landmark of this trace, got c₁ of another one. Pass the trace that it is from",
    ),
    (
        lambda: flow.split_paths(traced(), "cell"),
        ArgumentError,
        "split_paths: expected the target to be a Tensor, such as layer.weight_hh_l0, or a landmark, such as "
        "trace.states()[1].cell, got str",
    ),
    (
        lambda: flow.split_paths(traced(nn.RNN), leaf),
        ArgumentError,
        "trace: expected a Tensor that the loss was computed from, got v. It takes no part, requires no "
        "gradient, or was given a new value since; trace before the optimiser's step",
    ),
    (
        lambda: flow.split_paths((ledger := traced()), ledger.states()[1].cell, marked="sideways"),
        ArgumentError,
        "split_paths: expected marked to be 'recurrent', one of input, forget, candidate, output, reset, "
        "update, or a function; got 'sideways'",
    ),
    (
        lambda: flow.split_paths((ledger := traced()), ledger.states()[1].cell, marked=None),
        ArgumentError,
        "split_paths: expected marked to be 'recurrent', one of input, forget, candidate, output, reset, update, or a function; got None",
    ),
    (
        lambda: flow.split_paths((ledger := traced()), ledger.states()[1].cell, marked="reset"),
        ArgumentError,
        "split_paths: no gate 'reset' was traced; there are candidate, forget, input, output",
    ),
    (
        lambda: flow.connectivity(ran(), tg.tensor(np.ones((3, 1, 1)))),
        ArgumentError,
        "connectivity: expected inputs to be a Tensor (T, B, …) with a gradient, got shape (3, 1, 1) without "
        "a gradient. Use requires_grad=True",
    ),
    (
        lambda: flow.connectivity(3, leaf),
        ArgumentError,
        "connectivity: expected outputs to be a Tensor (T, B, …) with a gradient, got int. Use requires_grad=True",
    ),
    (
        lambda: flow.connectivity(ran(), tg.tensor(np.ones((3, 2, 1)), requires_grad=True)),
        ArgumentError,
        "connectivity: expected outputs and inputs of one batch, (T′, B, K) and (T, B, I), got (3, 1, 2) and (3, 2, 1). Put time first",
    ),
    (
        lambda: flow.connectivity(ran(), tg.tensor(np.ones((3, 1, 1)), requires_grad=True), unit=5),
        ArgumentError,
        "connectivity: expected a unit from 0 to 1, got 5",
    ),
    (
        lambda: flow.diagnose(3),
        ArgumentError,
        "diagnose: expected a loss (a Tensor) or its trace, got int",
    ),
    (
        lambda: flow.edges(kind="division"),
        ArgumentError,
        "edges: kind 'division' does not exist; expected one of add, scale, matmul, route",
    ),
    (
        lambda: traced().states("gru"),
        ArgumentError,
        "states: none fits 'gru'. Expected one of ['lstm']",
    ),
    (
        lambda: traced().states()[9],
        ArgumentError,
        "states: 'lstm' has no step 9; expected one from 1 to 3",
    ),
    (
        lambda: tg.trace((leaf * 2.0).sum()).states(),
        ArgumentError,
        "states: there is no recurrence in this trace: no layer left landmarks. Trace a loss that depends on a recurrent layer",
    ),
    (
        lambda: traced().node(leaf),
        ArgumentError,
        "trace: expected a Tensor that the loss was computed from, got v. It takes no part, requires no "
        "gradient, or was given a new value since; trace before the optimiser's step",
    ),
    (
        lambda: traced().node(3),
        ArgumentError,
        "trace: expected a Tensor that the loss was computed from, got int. It takes no part, requires no "
        "gradient, or was given a new value since; trace before the optimiser's step",
    ),
    (
        lambda: traced().filter(kind="division"),
        ArgumentError,
        "filter: kind 'division' does not exist; expected one of add, scale, matmul, route",
    ),
    (
        lambda: tg.trace(3),
        GraphError,
        "trace: expected a Tensor, got int",
    ),
    (
        lambda: tg.trace(ran(), keep="everything"),
        ArgumentError,
        "trace: keep must be 'arrays' or 'norms', got 'everything'",
    ),
    (
        lambda: tg.trace(tg.tensor([1.0])),
        GraphError,
        "trace: this Tensor has no graph; nothing it was computed from requires a gradient. Use "
        "requires_grad=True, and no no_grad() or detach() on the way",
    ),
    (
        lambda: flow.cut_time(every=0),
        ArgumentError,
        "cut_time: every must be whole numbers of at least 1, got 0",
    ),
    (
        lambda: flow.clip(flow.recurrent(), -1.0),
        ArgumentError,
        "clip: max_norm must be a number of at least 0, got -1.0",
    ),
    (
        lambda: flow.step_jacobians(tg.trace(nn.RNN(1, 2, rng=0)(np.full((3, 1, 1), np.nan))[0][-1].sum())).singular_values,
        ArgumentError,
        "step_jacobians: expected finite Jacobians, got infinities or NaN at step 2 and 1 others; they have "
        "no spectra. tg.detect_anomaly() finds where they begin",
    ),
    (
        lambda: flow.split_paths((ledger := traced()), ledger.states()[1].cell, marked=()),
        ArgumentError,
        "split_paths: expected marked to name some edges, got nothing. Pass a function that is always False for none",
    ),
    (
        lambda: flow.connectivity(ran(), tg.tensor(np.ones(3), requires_grad=True)),
        ArgumentError,
        "connectivity: expected inputs to be a Tensor (T, B, …) with a gradient, got shape (3,). Use requires_grad=True",
    ),
    (lambda: flow.force_gate("forget", 0.0, where=3), ArgumentError, "force_gate: where must be a function of a BackwardStep, got int"),
    (lambda: flow.force_gate("forget", "a"), ArgumentError, "force_gate: value must be a number or an array of numbers, got dtype <U1"),
    (
        lambda: flow.split_paths((t := traced()), t.states()[1].hidden, bins=0),
        ArgumentError,
        "split_paths: expected bins to be a whole number from 1 on, got 0",
    ),
    (
        lambda: flow.connectivity(ran(), tg.tensor(np.ones((3, 1, 1)), True)),
        ArgumentError,
        "connectivity: the outputs do not depend on the inputs. trace: expected a Tensor that the loss was computed from, got a "
        "Tensor of shape (3, 1, 1). It takes no part, requires no gradient, or was given a new value since; trace before the optimiser's "
        "step",
    ),
]


test_the_message = word_for_word(SAID)
