"""The chain rule written out: that it is true when read as a reader would, and that it can be typeset whatever things are called."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, render
from tinygrad_rnn.errors import ArgumentError
from tinygrad_rnn.linear_maps import Mask, MatMul, Scale
from tinygrad_rnn.testing import strategies

LAYERS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
GATES = {"rnn": "", "lstm": "ifgo", "gru": "rzn"}
SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
HOSTILE = "\"><script>alert(1)</script>\\N'$#%&_{}^~\n\0\ud800\u202e" + "x" * 10_000


# -- a reader: it knows the notation and NumPy, and nothing of the engine ------------------------------------------------------------


class Reader:
    """Evaluates a line of plain text; ``known`` holds the arrays by their symbols, ``width`` the columns of what [a; b] fills."""

    TOKEN = re.compile(r"\s*(⊙| · |[+−()\[\];²ᵀ𝟏]|Σ\(|tanh\(|[0-9]+(?:\.[0-9]+)?|(?!\d)(?:(?![²ᵀ])\w)+(?:⁽[⁰¹²³⁴-⁹]*[→←]?[ᵃᵇᶜᵈᵉᶠᵍʰ]?⁾)?)")

    def __init__(self, known, width):
        self.known, self.width = known, width

    def __call__(self, text):
        self.tokens = []
        at = 0
        while at < len(text):
            match = self.TOKEN.match(text, at) if not text.startswith(" · ", at) else re.compile("( · )").match(text, at)
            assert match, f"cannot read {text[at:]!r}"
            self.tokens.append(match[1])
            at = match.end()
        value = self.sum()
        assert not self.tokens, f"did not expect {self.tokens}"
        return value

    def next_is(self, *wanted):
        return bool(self.tokens) and self.tokens[0] in wanted

    def sum(self):
        total = -self.product() if self.next_is("−") and self.tokens.pop(0) else self.product()
        while self.next_is("+", "−"):
            total = total + self.product() if self.tokens.pop(0) == "+" else total - self.product()
        return total

    def product(self):
        value = self.dot()
        while self.next_is("⊙"):
            self.tokens.pop(0)
            value = value * self.dot()
        return value

    def dot(self):
        value = self.applied()
        if self.next_is(" · "):
            self.tokens.pop(0)
            value = value @ self.applied()
        return value

    def applied(self):
        """One thing, or several side by side: a number times something, or a matrix M x, which is x @ M.T."""
        value, number = self.atom()
        if self.tokens and not self.next_is("⊙", " · ", "+", "−", ")", "]", ";"):
            operand = self.applied()
            return value * operand if number else operand @ value.T
        return value

    def atom(self):
        token = self.tokens.pop(0)
        number = token[0].isdigit() and token != "𝟏"
        if token in ("(", "Σ(", "tanh("):
            value = self.sum()
            self.expect(")")
            value = {"(": lambda x: x, "Σ(": lambda x: x.sum(axis=0), "tanh(": np.tanh}[token](value)
        elif token == "[":
            value = self.blocks()
        elif number or token == "𝟏":
            value = float(token) if number else 1.0
        else:
            value = self.known[token]
        while self.next_is("²", "ᵀ", "["):
            sign = self.tokens.pop(0)
            if sign == "[":
                value = value[int(self.tokens.pop(0))]
                self.expect("]")
            else:
                value = value**2 if sign == "²" else value.T
        return value, number

    def blocks(self):
        parts = []
        while True:
            parts.append(self.sum())
            if self.tokens.pop(0) == "]":
                break
        real = [part for part in parts if not isinstance(part, float)]
        free = self.width - sum(part.shape[-1] for part in real)
        return np.concatenate([np.zeros((*real[0].shape[:-1], free)) if isinstance(part, float) else part for part in parts], axis=-1)

    def expect(self, token):
        assert self.tokens.pop(0) == token


def read(equation, known, width):
    """The cotangents that the lines of an equation give, the target's first."""
    known, found = dict(known), []
    for line in reversed(equation.lines):
        left, _, right = line.text.partition(" = ")
        value = Reader(known, width)(right)
        if line.name in known:
            value = np.broadcast_to(value, known[line.name].shape)
        known["δ" + line.name] = value
        found.append(value)
        assert left in (f"δ{line.name}", f"∂L/∂{line.name}")
    return found[::-1]


def recurrence(kind, steps, batch, seed, loss):
    rng = np.random.default_rng(seed)
    layer = LAYERS[kind](2, 3, rng=rng)
    x = rng.standard_normal((steps, batch, 2))
    outputs, _ = layer(x)
    value = {
        "last": lambda: outputs[-1].sum(),
        "all": lambda: (outputs**2).sum(),
        "one": lambda: (outputs[steps // 2] ** 2).sum(),
        "two": lambda: (outputs[0] * outputs[steps // 2]).sum() + outputs[-1].sum(),
    }[loss]()
    return layer, x, outputs, tg.trace(value)


def knowledge(kind, layer, x, outputs, trace):
    """What a reader looks up: states, gates and parameters, by their symbols."""
    known = {"outputs": outputs.value, "h₀": np.zeros(outputs.shape[1:]), "c₀": np.zeros(outputs.shape[1:])}
    weights = {name.removesuffix("_l0"): parameter.value for name, parameter in layer.named_parameters()}
    known |= {"W_hh": weights["weight_hh"], "W_ih": weights["weight_ih"], "b": weights["bias"]}
    known |= {"x" + str(t + 1).translate(SUBSCRIPT): x[t] for t in range(len(x))}
    names = {"forget": "f", "input": "i", "output": "o", "reset": "r", "update": "z", "candidate": "n" if kind == "gru" else "g"}
    for at in trace.states():
        parts = {part.node.name: part for part in at.parts} | {names[gate]: part for gate, part in at.gates.items() if gate in names}
        for name, part in parts.items():
            known[name + str(at.time).translate(SUBSCRIPT)] = part.value
    if kind == "gru":
        for at in trace.states():
            before = known["h" + str(at.time - 1).translate(SUBSCRIPT)]
            known["a_hn" + str(at.time).translate(SUBSCRIPT)] = before @ known["W_hh"][6:].T + weights["bias_hn"]
    return known


@given(
    st.sampled_from(list(LAYERS)),
    st.integers(2, 5),
    st.integers(1, 3),
    st.integers(0, 2**16),
    st.sampled_from(["last", "all", "one", "two"]),
)
def test_the_text_is_true(kind, steps, batch, seed, loss):
    """A reader who knows NumPy and the values in the text gets the engine's cotangents of states, of W_hh, W_ih and b."""
    layer, x, outputs, trace = recurrence(kind, steps, batch, seed, loss)
    known = knowledge(kind, layer, x, outputs, trace)
    width = layer.weight_hh_l0.shape[0]
    for part in ("hidden", "cell") if kind == "lstm" else ("hidden",):
        landmark = getattr(trace.states()[1], part)
        equation = render.equation(trace, (1, part))
        values = read(equation, known, width)
        np.testing.assert_allclose(values[0], landmark.cotangent, rtol=1e-9, atol=1e-12)
        for line, value in zip(equation.lines, values, strict=True):
            if line.name in known:  # of others the reader does not know the shape, which 𝟏 leaves open
                check_numbers(line.numbers, np.linalg.norm(value))
    if kind != "gru":
        for name, parameter in layer.named_parameters():
            (value, *_) = read(render.equation(trace, parameter), known, width)
            gradient = trace.gradients[trace.node(parameter)]
            np.testing.assert_allclose(value, gradient, rtol=1e-9, atol=1e-12, err_msg=name)


def check_numbers(said, norm):
    """That a line in numbers begins with this norm, and that every product in it is what stands before its sign of equality."""
    assert float(re.match(r"‖[^‖]*‖ = ([^ ,]+)", said)[1]) == pytest.approx(norm, rel=6e-3)
    for whole, product in re.findall(r"([\d.e+-]+) = ([\d.e+-]+(?: × [\d.e+-]+)+)", said):
        assert np.prod([float(part) for part in product.split(" × ")]) == pytest.approx(float(whole), rel=4e-2)


def test_an_entry_is_not_its_state():
    """outputs[1] is h₂ as a value, but ∂L/∂outputs[1] is what came by that entry alone, and is called so."""
    outputs, _ = nn.RNN(2, 3, rng=0)(np.ones((3, 1, 2)))
    entry = outputs[1]
    trace = tg.trace((entry * entry).sum() + outputs[-1].sum())
    equation = render.equation(trace, entry)
    assert equation.text.splitlines()[0] == "∂L/∂(outputs[1]) = δv₁ ⊙ h₂ + δv₁ ⊙ h₂"
    np.testing.assert_allclose(walked(trace, equation), 2.0 * entry.value, rtol=1e-12)
    assert "δ(outputs[1])" not in render.equation(trace, "h₂").text.splitlines()[0].partition("=")[0]


def test_an_untrue_line_is_noticed():
    """The reader is no yes-man: another factor, a missing term or a matrix the other way round gives other numbers."""
    layer, x, outputs, trace = recurrence("lstm", 3, 2, 0, "last")
    known = knowledge("lstm", layer, x, outputs, trace)
    equation = render.equation(trace, (1, "cell"))
    true = trace.states()[1].cell.cotangent
    assert np.allclose(read(equation, known, 12)[0], true)
    for wrong, right in (("f₂", "i₂"), (" + δh₁ ⊙ o₁ ⊙ (1 − tanh(c₁)²)", ""), ("o₁", "o₂")):
        assert wrong in equation.lines[0].text
        spoilt = SimpleNamespace(name="c₁", text=equation.lines[0].text.replace(wrong, right))
        assert not np.allclose(read(SimpleNamespace(lines=(spoilt, *equation.lines[1:])), known, 12)[0], true)


# -- any graph ------------------------------------------------------------------------------------------------------------------


def walked(trace, equation):
    """The cotangents by the paths of the lines, each multiplication done with plain NumPy."""
    seed = trace.steps[0].cotangent
    found = {}
    for line in reversed(equation.lines):
        total = 0.0
        for path in line.paths:
            value = seed if path.source is None else found[path.source]
            for place in path.steps:
                value = multiplied(trace.steps[place].map, value)
            total = total + value
        found[line.name] = total
    return total


def multiplied(linear_map, value):
    if isinstance(linear_map, Mask):
        return np.where(linear_map.factor, value, 0.0)
    if isinstance(linear_map, Scale):
        return value * linear_map.factor
    if isinstance(linear_map, MatMul) and linear_map.side == "right":
        return np.einsum("...ij,...kj->...ik", value, linear_map.matrix)
    if isinstance(linear_map, MatMul):
        return np.einsum("...ji,...jk->...ik" if not linear_map.flat else "bji,bjk->ik", linear_map.matrix, value)
    return linear_map.pullback(value)


@given(strategies.programs())
def test_any_graph(program):
    """For programs drawn at random the paths of the lines give the gradients, and every line can be written in all three ways."""
    leaves = [tg.tensor(x, requires_grad=True) for x in program.point]
    out = program(*leaves)
    trace = tg.trace((out * np.cos(np.arange(out.size)).reshape(out.shape)).sum())
    for leaf in leaves:
        try:
            info = trace.node(leaf)
        except ArgumentError:
            continue
        equation = render.equation(trace, leaf)
        np.testing.assert_allclose(walked(trace, equation), trace.gradients[info], rtol=1e-9, atol=1e-12)
        ET.fromstring(equation.mathml)
        assert len({line.name for line in equation.lines}) == len(equation.lines)
        assert len(equation.text.splitlines()) == len(equation.lines) == len(equation.numbers.splitlines())


def test_a_formula_of_scalars():
    """Every number has its sign: the product of the factors is the gradient."""
    a, b = (tg.tensor(value, requires_grad=True, name=name) for value, name in ((2.0, "a"), (-3.0, "b")))
    trace = tg.trace(np.tanh(a * b + 6.5) * a)
    equation = render.equation(trace, a)
    assert equation.text == "∂L/∂a = tanh(a ⊙ b + 6.5) + a ⊙ (1 − tanh(a ⊙ b + 6.5)²) ⊙ b"
    assert equation.numbers == "= 0.462 + 2 · 0.786 · (−3) = −4.26"
    assert trace.gradients[trace.node(a)] == pytest.approx(-4.26, abs=0.005)


def test_the_textbooks_lines():
    """An RNN's is one product, an LSTM's has a line for δh, δc and δa of each step."""
    *_, trace = recurrence("rnn", 3, 1, 0, "last")
    assert render.equation(trace, "h₁").text == "∂L/∂h₁ = W_hhᵀ (W_hhᵀ (δh₃ ⊙ (1 − h₃²)) ⊙ (1 − h₂²))\nδh₃ = 𝟏"
    *_, trace = recurrence("lstm", 3, 1, 0, "last")
    lines = render.equation(trace, (2, "cell")).text.splitlines()
    assert lines[0] == "∂L/∂c₂ = δc₃ ⊙ f₃ + δh₂ ⊙ o₂ ⊙ (1 − tanh(c₂)²)"
    assert lines[1] == "δh₂ = W_hhᵀ δa₃"
    assert [line.partition(" ")[0] for line in lines[1:]] == ["δh₂", "δa₃", "δc₃", "δh₃"]


@pytest.mark.parametrize("keep", ["arrays", "norms"])
def test_numbers_are_the_ledgers(keep):
    """The norm of a product is the product of its gains."""
    outputs, _ = nn.RNN(2, 3, rng=0)(np.random.default_rng(0).standard_normal((3, 1, 2)))
    trace = tg.trace(outputs[-1].sum(), keep=keep)
    said = render.equation(trace, (1, "hidden")).numbers.splitlines()[0]
    norm, product = re.fullmatch(r"‖δh₁‖ = (\S+) = (.*)", said).groups()
    assert float(norm) == pytest.approx(trace.states()[1].hidden.norm, rel=1e-2)
    assert np.prod([float(part) for part in product.split(" × ")]) == pytest.approx(float(norm), rel=2e-2)


@pytest.mark.parametrize(("kind", "steps"), [("rnn", 100), ("lstm", 1000), ("gru", 100)])
def test_a_long_one_is_folded(kind, steps):
    """Of 1,000 steps the first and last two are written, and all of them are there as data."""
    outputs, _ = LAYERS[kind](2, 3, rng=0)(np.ones((steps, 1, 2)))
    trace = tg.trace(outputs[-1].sum(), keep="norms")
    equation = render.equation(trace, (1, "hidden"))
    assert f"… {steps - 4} steps …" in equation.text and len(equation.text.splitlines()) < 30
    assert len({line.time for line in equation.lines}) == steps
    assert len(equation.latex) < 5000 and rf"{steps - 4}\ steps" in equation.latex
    assert len(render.equation(trace, "W_hh").text) < 3000


def test_targets():
    """A Tensor, a landmark, its place and its symbol are the same target; a gate has one too, and what nothing reaches is 0."""
    layer, *_, trace = recurrence("lstm", 3, 1, 0, "last")
    wanted = str(render.equation(trace, (2, "hidden")))
    assert wanted == str(render.equation(trace, trace.states()[2].hidden)) == str(render.equation(trace, "h₂"))
    assert str(render.equation(trace, (2, "hidden"), layer="lstm")) == wanted
    assert render.equation(trace, (3, "forget")).text.startswith("∂L/∂f₃ = δh₃ ⊙ o₃ ⊙ (1 − tanh(c₃)²) ⊙ c₂\n")
    assert render.equation(trace, layer.weight_hh_l0).target == "W_hh"
    a = tg.tensor(1.0, requires_grad=True, name="a")
    assert render.equation(tg.trace(a * 1.0), a).text == "∂L/∂a = 1"
    loss = a * a
    assert render.equation(tg.trace(loss), loss).text.endswith(" = 1")


def test_wrong_targets():
    """What is not on the way to the loss, has two meanings or is none at all is refused, and the message says what there is."""
    _, _, outputs, trace = recurrence("lstm", 3, 1, 0, "last")
    for wrong, said in (
        ("h₉", "no value is called 'h₉'; expected one of"),
        ((2, "forgot"), r"step 2 has no 'forgot'; expected one of \['hidden', 'cell', 'output'"),
        (3.5, "got float"),
        (tg.tensor(1.0, requires_grad=True), "expected a Tensor that the loss was computed from"),
    ):
        with pytest.raises(ArgumentError, match=said):
            render.equation(trace, wrong)
    with pytest.raises(ArgumentError, match="expected a trace"):
        render.equation(outputs, "h₁")
    with pytest.raises(ArgumentError, match="ends must be at least 1"):
        render.equation(trace, "h₁", ends=0)
    stacked, _ = nn.RNN(2, 3, num_layers=2, rng=0)(np.ones((2, 1, 2)))
    both = tg.trace(stacked[-1].sum())
    with pytest.raises(ArgumentError, match=r"several values are called 'h₁'; expected one of h₁⁽¹⁾, h₁⁽²⁾"):
        render.equation(both, "h₁")
    assert render.equation(both, "h₁⁽¹⁾").text.startswith("∂L/∂h₁⁽¹⁾ = ")


def test_layers_and_directions_have_marks():
    """Values of one name differ by the layer's number and an arrow for its direction, which notes explain; those of a layer by a letter."""
    x = np.sin(np.arange(4.0)).reshape(2, 1, 2)
    trace = tg.trace((nn.RNN(2, 3, bidirectional=True, rng=0)(x)[0] ** 2).sum())
    backward = render.equation(trace, (2, "hidden"), layer="rnn/l0_reverse")
    assert backward.target == "h₂⁽←⁾" and "⁽←⁾ marks what belongs to rnn/l0_reverse" in backward.where
    assert r"h_{2}^{(\leftarrow )}" in backward.latex and "<mn>(←)</mn>" in backward.mathml
    forward = render.equation(trace, "h₁⁽→⁾")
    assert "W_hh_l0ᵀ" in forward.text and "←" not in forward.text
    trace = tg.trace(nn.GRU(2, 3, num_layers=2, bidirectional=True, rng=0)(x)[0].sum())
    deep = render.equation(trace, (1, "hidden"), layer="gru/l0")
    assert deep.target == "h₁⁽¹→⁾" and "δa_n₂⁽²←ᵃ⁾" in deep.text
    assert {"⁽¹→⁾ marks what belongs to gru/l0", "⁽²←⁾ marks what belongs to gru/l1_reverse"} <= set(deep.where)


def test_a_hook_is_told():
    """Where a hook replaced a cotangent, the line above it no longer gives its value, and the equation says so."""
    x = tg.tensor([1.0, 2.0], requires_grad=True, name="x")
    y = np.tanh(x)
    y.register_hook(lambda cotangent: cotangent * 0.5)
    said = str(render.equation(tg.trace((y * y).sum()), x))
    assert "a hook replaced δ" in said
    z = np.tanh(x)
    assert "hook" not in str(render.equation(tg.trace((z * z).sum()), x))


# -- typeset --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        HOSTILE,
        "a_b_c",
        "x_1",
        "a + b",
        "ᵀ",
        "_",
        "^(",
        "((",
        "²",
        "W_hhᵀ",
        "λ",
        "weight_ih_l0_reverse",
        "",
        " ",
        "a" * 47 + "!",
        "x̂",
        "\ue0000\ue001",
    ],
)
def test_a_hostile_name_is_typeset(name):
    """Whatever a Tensor is called: one line of text, MathML that is well formed and holds no element of the name's, LaTeX that balances."""
    x = tg.tensor([1.0, 2.0], requires_grad=True, name=name)
    trace = tg.trace((np.tanh(x * x) * x).sum())
    equation = render.equation(trace, x)
    assert "<script" not in equation.mathml + equation._repr_html_()
    assert {element.tag for element in ET.fromstring(equation.mathml).iter()} <= {
        "math", "mtable", "mtr", "mtd", "mrow", "mi", "mn", "mo", "mtext", "mfrac", "msub", "msup", "msubsup"
    }  # fmt: skip
    assert len(equation.text.splitlines()) == len(equation.lines)
    bare = re.sub(r"\\[{}]", "", equation.latex)
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0 and "$" not in bare.replace(r"\$", "")
    equation.text.encode(), equation.latex.encode()


def test_latex_draws():
    """Matplotlib's mathtext, which is stricter than KaTeX, draws every line of an RNN, an LSTM, a GRU and of a hostile formula."""
    mathtext = pytest.importorskip("matplotlib.mathtext", reason="pip install matplotlib to draw LaTeX")
    parser = mathtext.MathTextParser("path")
    equations = [render.equation(recurrence(kind, 3, 1, 0, "all")[-1], "h₁") for kind in LAYERS]
    for name in (HOSTILE.replace("&", "")[:80], "a_b_c", "x_1", "100 %"):  # it knows no \\& as TeX does
        x = tg.tensor([[1.0, 2.0]], requires_grad=True, name=name)
        equations.append(render.equation(tg.trace((np.exp(x @ x.T) ** 3 / x).sum()), x))
    for equation in equations:
        for line in equation.lines:
            latex = line.latex.replace(r"\begin{bmatrix}", "[").replace(r"\end{bmatrix}", "]").replace(r" \\ ", ";")  # it knows no matrices
            parser.parse(f"${latex}$")


def test_a_notebook_typesets_it():
    """LaTeX between dollars, HTML with MathML and the numbers beside it."""
    *_, trace = recurrence("lstm", 3, 1, 0, "last")
    equation = render.equation(trace, "h₁")
    assert equation._repr_latex_().startswith("$$\n\\begin{aligned}") and equation.latex.count("&=") == len(equation.lines)
    assert r"\frac{\partial L}{\partial h_{1}} &= W_{\mathrm{hh}}^{\top} \delta a_{2}" in equation.latex
    assert equation._repr_html_().count("<math>") == len(equation.lines) and "‖δa₂‖" in equation._repr_html_()
