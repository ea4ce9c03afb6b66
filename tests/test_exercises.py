"""The four exercises: right answers in many forms are right, and wrong ones are told what is wrong with them."""

import contextlib
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import errors
from tinygrad_rnn.cli import main
from tinygrad_rnn.experiments.exercises import EXERCISES, Checked, check
from tinygrad_rnn.experiments.expressions import evaluate

RIGHT = [
    (1, 0.95**50),
    (1, "7.7 %"),
    (1, "about 7.7%"),
    (1, "0.95^50"),
    (1, "0.95⁵⁰"),
    (1, 7.69),
    (1, (0.0769, 0.0059)),
    (1, np.array([0.0769, 0.0059])),
    (1, tg.tensor(0.0769)),
    (1, "50 steps: 7.7 %; 100 steps: 0.59 %"),
    (1, "7,7 %"),
    (1, "0,077"),
    (1, "7.7 percent"),
    (1, "only 7.7% of the gradient survives"),
    (1, "after 50 steps 7.7 %, then 0.59 %"),
    (1, "0.95^50 ≈ 0.077"),
    (1, lambda radius, steps: math.exp(steps * math.log(radius))),
    (2, (0, 1)),
    (2, "0 and 1"),
    (2, ("the past is lost", "the past is kept")),
    (2, {0: "Cell state resets each step (like vanilla RNN).", 1: "Cell state accumulates forever (perfect memory)."}),
    (2, "f=1: never forgets; f=0: nothing is kept"),
    (2, "It is erased at every step, and it stays for ever"),
    (2, "f=0: keeps nothing; f=1: forgets nothing"),
    (2, "With f=0 the cell holds only the new input; with f=1 nothing is ever forgotten"),
    (2, "f_t = 0: the past is gone. f_t = 1: memory never decays"),
    (2, "f = 0: c_t = i ⊙ c̃_t; f = 1: c_t = c_{t-1} + i ⊙ c̃_t"),
    (2, ("c_t = 0 * c_{t-1} + i*g", "c_t = c_prev + i*g")),
    (2, lambda f, c, written: f * c + written),
    (3, "f = z, i = 1 - z, o = 1, c = h"),
    (3, "i_t = 1 − f_t; o_t = 1; h_t = c_t"),
    (3, {"forget": "1 - i", "output": 1, "cell": "hidden"}),
    (3, "forget gate = u and input gate = 1 - u and output gate = 1 and cell state = hidden state"),
    (3, "i_t = 1 - f_t, no output gate, c_t = h_t."),
    (3, "f and i tied (i = 1 - f), no output gate (o = 1), and cell state = hidden state"),
    (3, "i + f = 1, 1 = o, h = c"),
    (3, lambda h, z, n: z * h + (1 - z) * n),
    (3, lambda h, u, n: (1 - u) * h + u * n),
    (4, (1_574_912, 1_181_184)),
    (4, "LSTM: 1,574,912; GRU: 1,181,184"),
    (4, "GRU: 1,181,184, LSTM: 1,574,912"),
    (4, "4(512·768 + 512) and 3(512·768 + 512)"),
    (4, "The LSTM has 1,574,912 and the GRU has 1,181,184 parameters."),
    (4, "GRU 1181184 LSTM 1574912"),
    (4, "1 574 912 and 1 181 184"),
    (4, "an LSTM cell has 4(512·768 + 512), a GRU 3(512·768 + 512)"),
    (4, {"gru": 1_181_184, "lstm": 1_574_912}),
    (4, (1_576_960, 1_182_720)),
    (4, (1_574_912, 1_181_696)),
    (4, lambda i, h: (4 * (h * (h + i) + h), 3 * (h * (h + i) + h))),
]

WRONG = [
    (1, 47.5, "is 0.95 · 50"),
    (1, -1.5, "takes off 5% of the whole 50 times"),
    (1, 1 - 0.95**50, "is what is lost"),
    (1, 0.95**49, "one too few"),
    (1, 0.95**51, "one too many"),
    (1, 0.95**100, "after 100 steps, or the square"),
    (1, math.exp(-2.5), "ln 0.95 is -0.0513"),
    (1, math.log(0.95) * 50, "natural logarithm"),
    (1, 0.5, "would be left after 13.5 steps"),
    (1, 3.3, "cannot be the fraction"),
    (1, (0.0769, 0.0769), "is left after 50 steps, or the root of what was asked"),
    (1, (0.0769, 0.5), "would be left after 13.5 steps; after 100 it is 0.95¹⁰⁰"),
    (1, lambda radius, steps: radius * steps, "is 0.95 · 50"),
    (2, (1, 0), "swapped"),
    (2, ("it keeps everything", "it is reset"), "swapped"),
    (2, ("it is reset", "it is reset too"), "f = 1 is not what you say: c_{t−1} is kept whole"),
    (2, ("it never forgets", "it keeps all"), "f = 0 is not what you say: nothing of c_{t−1}"),
    (2, ("it forgets nothing", "it keeps nothing"), "swapped"),
    (2, ("c_t = c_{t-1} + i*g", "c_t = i*g"), "swapped"),
    (2, ("blue", "it keeps all"), "of f = 0 you say 'blue'"),
    (2, (0.5, 1), "the factor of the past is f itself"),
    (2, lambda f, c, written: f * c, "leaves out what is written"),
    (2, lambda f, c, written: (1 - f) * c + written, "wrong way round"),
    (2, lambda f, c, written: f * c + (1 - f) * written, "ties the input gate"),
    (2, lambda f, c, written: np.tanh(f * c + written), "puts tanh around the cell"),
    (2, lambda f, c, written: f + c + written, "it differs by"),
    (3, "i = f, o = 1, c = h", "does not mean equal"),
    (3, "f = z, i = 0.1 + z, o = 1, c = h", "must be 1"),
    (3, "f = z, o = 1, c = h", "the input gate's equation is missing"),
    (3, "i + f = 2, o = 1, c = h", "the input gate's equation is missing"),
    (3, "i = 1 - f, c = h", "nothing is said of the output gate"),
    (3, "i = 1 - f, o = 0.5, c = h", "o is 0.5"),
    (3, "i = 1 - f, o = 1", "nothing is said of the cell"),
    (3, "i = 1 - f, o = 1, c = tanh(h)", "the cell is 'tanh(h)'"),
    (3, lambda h, z, n: np.tanh(z * h + (1 - z) * n), "keeps the LSTM's tanh"),
    (3, lambda h, z, n: z * h + n, "leaves the input gate open"),
    (3, lambda h, z, n: h, "it differs by"),
    (4, (1_572_864, 1_179_648), "leaves out the biases"),
    (4, (1_181_184, 1_574_912), "swapped"),
    (4, (1_181_184, 1_181_184), "has 3 blocks; there are 4"),
    (4, (526_336, 1_181_184), "leaves out the weights on h"),
    (4, (393_728, 1_181_184), "is one block"),
    (4, "LSTM 1.57M, GRU 1.18M", "is 4,912 too few"),
    (4, "LSTM has 1,181,184 and GRU has 1,574,912", "swapped"),
    (4, 1_574_912, "the GRU's is missing"),
    (4, (1_574_913, 1_181_184), "is 1 too many"),
    (4, lambda i, h: (4 * (i * (h + i) + i), 3 * (h * (h + i) + h)), "I and H the wrong way round"),
    (4, lambda i, h: (1_574_912, 1_181_184), "with I = 3 and H = 5"),
]


@pytest.mark.parametrize(("n", "answer"), RIGHT)
def test_right_answers(n, answer):
    """In every reasonable form; the check is true, and says why."""
    found = check(n, answer)
    assert found and found.correct and found.explanation
    assert str(found).startswith("Right: ")


@pytest.mark.parametrize(("n", "answer", "why"), WRONG)
def test_wrong_answers_are_told_why(n, answer, why):
    """The explanation names this mistake."""
    found = check(n, answer)
    assert not found and why in found.explanation
    assert str(found).startswith("Not yet: ")


def test_answers_by_name():
    """Numbers under the names of what they count are right and wrong as those without; two gates that are each other's rest are tied."""
    counts = {"LSTM": 1_574_912, "GRU": 1_181_184}
    assert check(4, counts) and check(4, counts).explanation == check(4, tuple(counts.values())).explanation
    assert check(4, {**counts, "GRU": 1_181_185}).explanation == check(4, (1_574_912, 1_181_185)).explanation
    assert check(1, {"after 50 steps": 0.95**50, "after 100 steps": 0.95**100}) and not check(1, {"after 50 steps": 0.95**49})
    both = check(3, "f = 1 − i, i = 1 − f, o = 1, c = h")
    assert both and both.explanation == check(3, "f = z, i = 1 − z, o = 1, c = h").explanation


def test_a_function_of_another_shape():
    """What a learner's step returns is told beside what was handed to it."""
    assert str(check(3, lambda h, z, n: np.zeros((2, 5)))) == "Not yet: your function returns shape (2, 5) for states of shape (5,)."


def test_a_check_as_a_table():
    """Question, verdict and explanation, in rows."""
    for answer, verdict in ((0.95**50, "right"), (0.5, "not yet")):
        found = check(1, answer)
        assert found.table().columns == ("exercise 1", "")
        assert found.table().rows == (("question", EXERCISES[1].question), ("", verdict), ("", found.explanation))


@pytest.mark.parametrize("n", EXERCISES)
def test_each_mistake_has_an_explanation_of_its_own(n):
    """No two typical wrong answers of an exercise are told the same, and its own answer is right."""
    wrong = [check(n, answer) for answer in EXERCISES[n].wrong.values()]
    assert not any(wrong) and len({found.explanation for found in wrong}) == len(wrong)
    assert check(n, EXERCISES[n].model)


@pytest.mark.parametrize(
    ("n", "answer", "message"),
    [
        (5, 1, "there is no exercise 5; expected one of 1, 2, 3, 4"),
        (1, "", "the answer is empty"),
        (1, None, r"exercise 1 takes a number, .*, got None"),
        (1, math.nan, "exercise 1 takes"),
        (1, (1, 2, 3), "exercise 1 takes"),
        (1, "seven", "exercise 1 takes"),
        (1, lambda x: 1, "the function given for exercise 1 failed: TypeError"),
        (2, {"a": "reset"}, "exercise 2 takes"),
        (3, 7, "exercise 3 takes"),
        (3, "i = w, o = 1, c = h", "'w' cannot be read"),
        (4, "many", "exercise 4 takes"),
    ],
)
def test_answers_of_no_use_are_errors(n, answer, message):
    """What cannot be judged raises, and says what an answer may be."""
    with pytest.raises(errors.ArgumentError, match=message):
        check(n, answer)


@given(st.floats(-2.0, 2.0))
def test_a_number_is_right_where_it_is_near(value):
    """Right means within 4.5 % of 0.95⁵⁰."""
    expected = 0.95**50
    if abs(abs(value / expected - 1) - 0.045) > 0.003:
        assert check(1, value).correct == (abs(value / expected - 1) < 0.045)


@given(n=st.sampled_from(sorted(EXERCISES)), answer=st.text(max_size=40) | st.text(alphabet="fizoch01=-+*/(). ,;e%^", max_size=30))
def test_any_text_is_judged_or_refused(n, answer):
    """No text makes anything but a check or an ArgumentError."""
    with contextlib.suppress(errors.ArgumentError):
        assert isinstance(check(n, answer), Checked)


# -- formulas -------------------------------------------------------------------------------------------------------------------


def formulas():
    """Pairs of a text in Python's notation and what Python makes of it."""
    numbers = st.floats(0.1, 9.0).map(lambda x: f"{x:.3f}")
    return st.recursive(
        numbers, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({' '.join(parts)})"), max_leaves=6
    )


@given(formulas())
def test_formulas_are_those_of_arithmetic(text):
    """The same value as Python's own arithmetic, or an error where that has none."""
    try:
        expected = eval(text)  # ours: digits, signs and parentheses
    except ZeroDivisionError:
        expected = math.inf
    if len(text) <= 200 and math.isfinite(expected):
        assert evaluate(text) == pytest.approx(expected, rel=1e-12)
    else:
        with pytest.raises(errors.ArgumentError):
            evaluate(text)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "1/0",
        "(-1)**0.5",
        "1e999",
        "ln(0)",
        "__import__('os')",
        "a",
        "True",
        "[1]",
        "'x'",
        "tanh(1, 2)",
        "(" * 150,
        "1" * 300,
        "",
    ],
)
def test_what_is_no_formula_is_refused(text):
    """Nothing is executed, nothing runs for long, and nothing comes out that is not a finite number."""
    with pytest.raises(errors.ArgumentError, match="formula"):
        evaluate(text)


def test_formulas_as_people_write_them():
    """Signs for products, powers, percent, thousands, a product left out, names and functions."""
    assert evaluate("4(512·768 + 512)") == evaluate("4×(512⊙768+512)") == 1_574_912
    assert evaluate("1,574,912") == 1_574_912 and evaluate("7.7%") == pytest.approx(0.077)
    assert evaluate("0.95^50") == evaluate("0.95**50") == evaluate("0.95⁵⁰") == 0.95**50
    np.testing.assert_allclose(evaluate("1 − σ(a)", {"a": np.array([0.0, 2.0])}), 1 / (1 + np.exp([0.0, 2.0])))


# -- the command ----------------------------------------------------------------------------------------------------------------


def test_the_command_checks_an_answer(capsys):
    """A right answer ends with 0, a wrong one with 1, one that cannot be judged with 2; without one, the exercise is printed."""
    assert main(["exercise", "1", "7.7 %"]) == 0 and "Right: 0.95⁵⁰" in capsys.readouterr().out
    assert main(["exercise", "4", "1,572,864", "and", "1,181,184"]) == 1 and "leaves out the biases" in capsys.readouterr().out
    assert main(["exercise", "3", "who knows"]) == 2 and "exercise 3 takes equations" in capsys.readouterr().err
    assert main(["exercise", "2"]) == 0 and "What does a forget gate of 0" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["exercise", "7"])


def test_the_help_shows_the_exercises():
    """With each question, and an example."""
    done = subprocess.run(
        [sys.executable, "-m", "tinygrad_rnn", "exercise", "--help"], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert all(exercise.question in done.stdout for exercise in EXERCISES.values()) and "example: tinygrad-rnn exercise 1" in done.stdout
