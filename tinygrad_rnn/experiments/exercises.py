"""The four exercises of the lecture: ``check(n, answer)`` says whether an answer is right, and if not, what is wrong with it.

====  ======================================================================  ==========================================================
n     asks                                                                    an answer may be
====  ======================================================================  ==========================================================
1     what fraction of a gradient is left after 50 steps with |λ| = 0.95      a number, ``"7.7 %"``, a pair (50 and 100 steps), a function
2     what a forget gate of 0 does, and of 1                                  two texts or one, two factors, a function of one step
3     how a GRU is an LSTM                                                    equations as text or dict, a function of one step
4     the parameters of an LSTM cell and a GRU cell, I = 256 and H = 512      two numbers, a text, a dict, a function of I and H
====  ======================================================================  ==========================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError
from ..nn.init import generator
from ..render.charts import Chart, series
from ..report import Result, Table, aligned, number
from .counts import parameter_count
from .expressions import evaluate
from .gated import lstm_cell
from .measurement import Claim, Measurement, experiment, holds
from .tied import gru_as_lstm
from .vanishing import eigenvalues


@dataclass(frozen=True, eq=False)
class Checked(Result):
    """What a check came to; true if the answer is right.

    Attributes:
        exercise: its number; ``question`` what it asks.
        correct: whether the answer is right.
        explanation: why it is, or what is wrong with it.
    """

    exercise: int
    question: str
    correct: bool
    explanation: str

    def __bool__(self) -> bool:
        return self.correct

    def table(self) -> Table:
        """Question, verdict, explanation."""
        rows = [("question", self.question), ("", "right" if self.correct else "not yet"), ("", self.explanation)]
        return aligned((f"exercise {self.exercise}", ""), rows)

    def __str__(self) -> str:
        return f"{'Right' if self.correct else 'Not yet'}: {self.explanation}"


class Exercise(NamedTuple):
    """One exercise.

    Attributes:
        question: what it asks.
        forms: what an answer may be.
        check: answer → (whether it is right, the explanation).
        model: a right answer; ``wrong`` typical wrong ones, by what is wrong.
    """

    question: str
    forms: str
    check: Callable[[Any], tuple[bool, str]]
    model: Any
    wrong: Mapping[str, Any]


def check(n: int, answer: Any) -> Checked:
    """Whether an answer to exercise n is right, and if not, what is wrong with it. The explanation is computed from the answer.

    Args:
        n: 1 to 4.
        answer: see the table above; numbers may be texts with ``%``, thousands' commas or formulas.

    Raises:
        ArgumentError: for another exercise, or an answer of a form that the exercise does not take.

    Example:
        >>> from tinygrad_rnn.experiments import exercises
        >>> print(exercises.check(1, 0.95 * 50))
        Not yet: 47.5 is 0.95 · 50. Each step multiplies what the step before left, so the factors multiply: 0.95⁵⁰.
        >>> exercises.check(1, "7.7 %").correct
        True
        >>> print(exercises.check(4, (4 * 512 * 768, 1_181_184)))
        Not yet: LSTM: 1,572,864 leaves out the biases: each of the 4 blocks has 512 more.
    """
    if n not in EXERCISES:
        raise ArgumentError(f"check: there is no exercise {n!r}; expected one of {', '.join(map(str, EXERCISES))}")
    exercise = EXERCISES[n]
    answer = getattr(answer, "value", answer)
    if isinstance(answer, str) and not answer.strip():
        raise ArgumentError(f"check: the answer is empty; exercise {n} takes {exercise.forms}")
    correct, explanation = exercise.check(answer)
    return Checked(n, exercise.question, correct, explanation)


def _unusable(n: int, answer: Any) -> ArgumentError:
    shown = repr(answer) if len(repr(answer)) <= 60 else type(answer).__name__
    return ArgumentError(f"check: exercise {n} takes {EXERCISES[n].forms}, got {shown}")


def _called(n: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a learner's function returns."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ArgumentError(f"check: the function given for exercise {n} failed: {type(error).__name__}: {error}") from error


def _numbers(n: int, answer: Any, most: int) -> list[float]:
    """One to ``most`` numbers of an answer: a number, a text, or several of them."""
    parts: Any
    if isinstance(answer, str):
        text = re.sub(r"\s*per\s?cent\b", " %", answer)
        if n == 1:  # a decimal comma
            text = re.sub(r"(?<![\d.,])(\d+),(?=\d+\s*%)|(?<![\d.,])0,(?=\d)", lambda found: f"{found[1] or 0}.", text)
        split = [part for part in re.split(r";|\band\b|\bthen\b|\n|,(?!\d{3}(?!\d))", text) if part.strip()]
        parts = [_formula(re.split("[:=≈~]", part)[-1].strip(" .")) for part in split]
    elif isinstance(answer, Mapping):
        parts = list(answer.values())
    else:
        parts = answer if isinstance(answer, (list, tuple)) else np.ravel(answer).tolist()
    try:
        found = [float(evaluate(part) if isinstance(part, str) else part) for part in parts]
    except (TypeError, ValueError):
        raise _unusable(n, answer) from None
    if not 1 <= len(found) <= most or not all(map(math.isfinite, found)):
        raise _unusable(n, answer)
    return found


def _formula(text: str) -> str:
    """What an answer in words says: the text itself if it is a formula, else the one number in it, but for a number of steps."""
    try:
        evaluate(text)
    except ArgumentError:
        found = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:\s*%)?", re.sub(r"\b\d+\s*(?:time\s?)?steps?\b", "", text))
        return found[0] if len(found) == 1 and re.search(r"[a-z]{2}", text, re.I) else text
    return text


def _about(value: float, expected: float, within: float = 0.005) -> bool:
    return math.isclose(value, expected, rel_tol=within, abs_tol=1e-12)


ROUNDED = 0.045
"""How far a rounded answer may be off: 8 % is 7.7 % rounded, but 0.95⁵¹ is not 0.95⁵⁰."""


# -- 1: eigenvalues -------------------------------------------------------------------------------------------------------------


def _fraction(answer: Any) -> tuple[bool, str]:
    if callable(answer):
        for radius, steps in ((0.95, 50), (0.9, 100), (1.0, 7), (1.1, 20)):
            given = float(_called(1, answer, radius, steps))
            if not _about(given, radius**steps):
                return (
                    False,
                    f"your function gives {number(given)} for |λ| = {radius:g} after {steps} steps. {_why_not(given, radius, steps)}",
                )
        return True, "|λ|ᵏ, for every |λ| and k that were tried."
    remarks = []
    measured = 10.0 ** eigenvalues((0.95,), (50, 100)).log10_measured[0]
    for value, k, left in zip(_numbers(1, answer, 2), (50, 100), measured, strict=False):
        if _about(value, 100 * left, ROUNDED):
            remarks.append(f"{number(value)} is in percent; the fraction is {number(value / 100)}")
        elif not _about(value, left, ROUNDED):
            return False, _why_not(value, 0.95, k)
    remarks.append(f"0.95⁵⁰ = {number(0.95**50, 4)}; measured, {measured[0]:.1%} is left, and after 100 steps {measured[1]:.2%}")
    return True, ". ".join(remarks) + "."


def _why_not(value: float, radius: float, steps: int) -> str:
    """What a wrong fraction may have come from."""
    shown, power = number(value, 4), f"{radius:g}" + str(steps).translate(_RAISED)
    causes = {
        radius * steps: f"is {radius:g} · {steps}. Each step multiplies what the step before left, so the factors multiply: {power}",
        1
        - (1 - radius) * steps: f"takes off {1 - radius:.0%} of the whole {steps} times; each step takes {1 - radius:.0%} of what is left",
        1 - radius**steps: "is what is lost; asked is what remains",
        radius ** (steps - 1): f"is left after {steps - 1} steps, one too few",
        radius ** (steps + 1): f"is left after {steps + 1} steps, one too many",
        radius ** (2 * steps): f"is left after {2 * steps} steps, or the square of what was asked",
        radius ** (steps / 2): f"is left after {steps // 2} steps, or the root of what was asked",
        math.exp(
            -(1 - radius) * steps
        ): f"is exp(−{1 - radius:.2g} · {steps}); ln {radius:g} is {math.log(radius):.4f}, not −{1 - radius:.2g}",
        steps * math.log(radius): "is its natural logarithm",
        steps * math.log10(radius): "is its logarithm to base 10",
        steps**radius: f"is {steps} to the power {radius:g}; it is the other way round",
        radius: f"is left after one step, not after {steps}",
        radius / steps: f"is {radius:g} / {steps}; the factors multiply: {power}",
    }
    for wrong, cause in causes.items():
        if _about(value, wrong):
            return f"{shown} {cause}."
    if radius < 1 and 0 < value < 1:
        return f"{shown} would be left after {math.log(value) / math.log(radius):.1f} steps; after {steps} it is {power}."
    return f"{shown} cannot be the fraction that is left: {power} is between 0 and 1." if radius < 1 else f"{shown} is not {power}."


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


# -- 2: the forget gate ---------------------------------------------------------------------------------------------------------

_LOSES = (
    r"reset|forg[eo]t|eras|clear|overwr|discard|lost|lose|wipe|vanish|drop|delet|replac|empt|zero|gone|decay|fade|no memory"
    r"|only (\w+ )?(the )?new"
    r"|nothing (is )?(kept|remembered|left)"
)
_KEEPS = (
    r"keep|kept|accumul|remember|forever|for ever|perfect|preserv|retain|memori[sz]|add(s|ed)? up|sum|stays|unchanged|all of the past"
    r"|carr(y|ied|ies)|indefinite|infinite"
)
_DENIED = r"\b(never|not|nothing( is)?|nothing ever|no longer|without|doesn.t|does not|is not|isn.t)\s+(be\s+|being\s+|ever\s+)?"

_PAST = r"c(?:_?[{(]?t\s*[-−–]\s*1[)}]?|ₜ₋₁|_?prev\w*|_?old)"
"""c_{t−1}, in the ways in which it is written."""


def _forget(answer: Any) -> tuple[bool, str]:
    if callable(answer):
        return _forget_step(answer)
    texts = _two_texts(answer)
    if texts is None:
        given = _numbers(2, answer, 2)
        if given == [0.0, 1.0]:
            return True, f"as the factor ∂c_t/∂c_{{t−1}} of the direct path. {_measured_gates()}"
        if given == [1.0, 0.0]:
            return False, "the two are swapped: f multiplies c_{t−1}, so f = 0 leaves nothing of it and f = 1 all of it."
        return (
            False,
            f"c_t = f ⊙ c_{{t−1}} + i ⊙ c̃_t, so the factor of the past is f itself: 0 and 1, and not {', '.join(map(number, given))}.",
        )
    found = [_meaning(text) for text in texts]
    if found == ["loses", "keeps"]:
        return True, _measured_gates()
    if found == ["keeps", "loses"]:
        return False, "the two are swapped: in c_t = f ⊙ c_{t−1} + i ⊙ c̃_t, f = 0 leaves nothing of the past and f = 1 all of it."
    gate = 1 if found[0] == "loses" else 0  # where the first mistake is
    if found[gate] == "unclear":
        shown = texts[gate].strip() or "nothing"
        return False, f"of f = {gate} you say {shown!r}: say what becomes of c_{{t−1}}, whether it is lost or kept."
    right = "nothing of c_{t−1} is left: c_t = i ⊙ c̃_t" if gate == 0 else "c_{t−1} is kept whole: c_t = c_{t−1} + i ⊙ c̃_t"
    return False, f"f = {gate} is not what you say: {right}."


def _measured_gates() -> str:
    found = lstm_cell()
    return (
        f"f = 0 resets the cell at every step, f = 1 accumulates for ever; measured, {number(found.kept_at_zero)} and "
        f"{number(found.kept_at_one)} of a direct gradient are left after {found.lag} steps."
    )


def _two_texts(answer: Any) -> tuple[str, str] | None:
    """What an answer says of f = 0 and of f = 1; None if it does not consist of texts."""
    if isinstance(answer, Mapping):
        try:
            by_gate = {float(str(key).replace(" ", "").removeprefix("f=")): value for key, value in answer.items()}
            answer = (by_gate[0.0], by_gate[1.0])
        except (KeyError, ValueError):
            raise _unusable(2, answer) from None
    if isinstance(answer, str):
        parts = re.split(r"f(?:_t)?\s*(?:=|is|→|->)\s*([01])(?:\.0)?\b", answer)
        said = dict(zip(parts[1::2], parts[2::2], strict=True))
        if set(said) == {"0", "1"}:
            return said["0"], said["1"]
        answer = re.split(r";|\n|,|\. |\band\b|\bwhile\b", answer, maxsplit=1)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2 or not all(isinstance(part, str) for part in answer):
        return None
    return None if all(re.fullmatch(r"\s*[\d.]+\s*", part) for part in answer) else (answer[0], answer[1])


def _meaning(text: str) -> str:
    """Whether a text says that the past is lost or kept: by its equation, or its words, where a negation turns one into the other."""
    plain = text.lower()
    if equation := re.search(r"\bc(?:_?t|ₜ|')?\s*=(.*)", plain):
        kept = re.sub(rf"\b0\s*[*·⊙×]?\s*{_PAST}", "", equation[1])
        return "keeps" if re.search(_PAST, kept) else "loses"
    for words, opposite in ((_LOSES, " keep "), (_KEEPS, " reset ")):
        plain = re.sub(rf"{_DENIED}({words})\w*|\b({words})\w*\s+nothing\b", opposite, plain)
    loses, keeps = (len(re.findall(words, plain)) for words in (_LOSES, _KEEPS))
    return "unclear" if loses == keeps else "loses" if loses > keeps else "keeps"


def _forget_step(step: Callable[..., Any]) -> tuple[bool, str]:
    """A learner's function (f, c_{t−1}, what is written) → c_t."""
    rng = generator(0)
    past, written = rng.standard_normal((2, 5))
    for f in (0.3, 0.0, 1.0):
        given = np.asarray(_called(2, step, f, past, written), dtype=float)
        if given.shape == past.shape and np.allclose(given, f * past + written):
            continue
        causes = {
            "leaves out what is written, i ⊙ c̃_t": f * past,
            "has the gate the wrong way round: f multiplies the past": (1 - f) * past + written,
            "ties the input gate to the forget gate, as a GRU does; in an LSTM i is a gate of its own": f * past + (1 - f) * written,
            "multiplies where it should add": f * past * written,
            "puts tanh around the cell: it stands at the output only": np.tanh(f * past + written),
        }
        for cause, wrong in causes.items():
            if given.shape == past.shape and np.allclose(given, wrong):
                return False, f"at f = {f:g} your function {cause}. c_t = f ⊙ c_{{t−1}} + (i ⊙ c̃_t)."
        apart = number(float(np.abs(given - (f * past + written)).max())) if given.shape == past.shape else f"shape {given.shape}"
        return False, f"at f = {f:g} your function is not f ⊙ c_{{t−1}} + what is written: it differs by {apart}."
    return True, _measured_gates()


# -- 3: the GRU as an LSTM ------------------------------------------------------------------------------------------------------

_NAMES = {
    long: short
    for short, names in {
        "f": ("f_t", "forget", "forget gate"),
        "i": ("i_t", "input", "input gate"),
        "o": ("o_t", "output", "output gate"),
        "c": ("c_t", "cell", "cell state"),
        "h": ("h_t", "hidden", "hidden state", "state"),
        "z": ("z_t", "update", "update gate"),
        "u": ("u_t",),
    }.items()
    for long in names
}
"""What a learner may call the gates and states."""


def _tied(answer: Any) -> tuple[bool, str]:
    if callable(answer):
        return _tied_step(answer)
    said = _equations(answer)
    gate = generator(0).uniform(0.2, 0.8, 5)
    known: dict[str, Any] = {"z": gate, "u": 1.0 - gate, "h": gate * 0.0 + 0.3}
    f, i = _two_gates(said, known)
    dropped = gru_as_lstm()
    far = dict(zip(dropped.case, map(float, dropped.outputs), strict=True))
    if i is None or f is None:
        missing = "input gate's" if i is None else "forget gate's"
        return False, (
            f"the {missing} equation is missing: f and i are tied, i = 1 − f. With an input gate of its own the outputs differ by "
            f"{number(far['i = 1 − f'])} in a measured case."
        )
    if not np.allclose(f + i, 1.0):
        if np.allclose(f, i):
            return False, "tied does not mean equal: with i = f, c_t = f ⊙ (c_{t−1} + c̃_t). The GRU mixes old and new, so i = 1 − f."
        return (
            False,
            f"i + f is {number(float(np.mean(f + i)))} in your equations where it must be 1: the GRU's weights of old and new add up to 1.",
        )
    if "o" not in said:
        own = number(far["o = 1"])
        return False, f"nothing is said of the output gate: o = 1. With one of its own the outputs differ by {own} in a measured case."
    o = evaluate(said["o"], {**known, "f": f, "i": i})
    if not np.allclose(o, 1.0):
        return False, f"o is {number(float(np.mean(o)))} on average in your equations; the GRU shows its whole state, o = 1."
    if said.get("c") != "h" and said.get("h") not in ("c", "o*c", "o * c"):
        shown = said.get("c", said.get("h"))
        missing = "nothing is said of the cell" if shown is None else f"the cell is {shown!r} in your equations"
        kept = number(far["no tanh at the output"])
        return False, f"{missing}: c = h. An LSTM shows tanh(c); kept, the outputs differ by {kept} in a measured case."
    return True, _conditions(far)


def _conditions(far: Mapping[str, float]) -> str:
    return (
        f"Then c' = f ⊙ c + i ⊙ c̃ is the GRU's h' = (1 − i) ⊙ h + i ⊙ h̃; measured, outputs and gradients differ by {number(far['none'])}. "
        f"Two things are still needed: r = 1 (a reset gate of its own makes {number(far['r = 1'])}), and no tanh at the output "
        f"(the one that every LSTM has makes {number(far['no tanh at the output'])})."
    )


def _equations(answer: Any) -> dict[str, str]:
    """The equations of an answer by their left side."""
    if isinstance(answer, str):
        cleaned = answer.replace("==", "=").replace("c̃", "n").replace("h̃", "n")
        cleaned = re.sub(r"\b(no|without an?)\s+(output gate|o)\b", ", o = 1,", cleaned, flags=re.I)
        cleaned = re.sub(r"\(([^()=]*=[^()=]*)\)", r", \1,", cleaned)  # an equation in parentheses
        parts = [part for part in re.split(r",|;|\n|\band\b", cleaned) if "=" in part]
        pairs = [tuple(side.strip() for side in part.split("=", 1)) for part in parts]
    elif isinstance(answer, Mapping):
        pairs = [(str(name), str(value)) for name, value in answer.items()]
    else:
        raise _unusable(3, answer)
    if not pairs:
        raise _unusable(3, answer)
    said = {}
    for pair in pairs:
        left, right = map(_short, pair)
        if not left.isidentifier() and right.isidentifier():
            left, right = right, left
        if {left, right} & {"1", "1.0"} and (added := re.fullmatch(r"([fi])\s*\+\s*([fi])", left if right.startswith("1") else right)):
            left, right = added[1], f"1 - {added[2]}"
        said[left] = right
    return said


def _short(side: str) -> str:
    """One side of an equation, with gates and states by their letters."""
    plain = re.sub(r"₍?ₜ₎?", "", side.strip(" .").lower())
    for long, short in sorted(_NAMES.items(), key=lambda pair: -len(pair[0])):
        plain = re.sub(rf"\b{long}\b", short, plain)
    return plain


def _two_gates(said: Mapping[str, str], known: dict[str, Any]) -> tuple[Any, Any]:
    """f and i by an answer's equations; whichever is given by the other is computed last. None for one of which nothing is said."""
    found: dict[str, Any] = {"f": None, "i": None}
    depends = {name: bool(re.search(rf"\b{other}\b", said.get(name, ""))) for name, other in (("f", "i"), ("i", "f"))}
    if depends["f"] and "i" not in said:
        found["i"] = known["u"]  # the other gate is the free one
    if depends["i"] and "f" not in said:
        found["f"] = known["z"]
    if depends["f"] and depends["i"]:
        found["f"] = known["z"]
        depends["f"] = False
    for name in sorted(("f", "i"), key=lambda name: depends[name]):
        if name in said and found[name] is None:
            found[name] = evaluate(said[name], {**known, **{k: v for k, v in found.items() if v is not None}})
    return found["f"], found["i"]


def _tied_step(step: Callable[..., Any]) -> tuple[bool, str]:
    """A learner's function (h_{t−1}, gate, candidate) → h_t, by way of the LSTM's equations."""
    rng = generator(0)
    h, new = rng.standard_normal((2, 5))
    gate = rng.uniform(0.1, 0.9, 5)
    given = np.asarray(_called(3, step, h, gate, new), dtype=float)
    if given.shape != h.shape:
        return False, f"your function returns shape {given.shape} for states of shape {h.shape}."
    right = {
        "z = f, as in PyTorch": gate * h + (1 - gate) * new,
        "u = i, as in the lecture, where u = 0 keeps the past": (1 - gate) * h + gate * new,
    }
    for convention, value in right.items():
        if np.allclose(given, value):
            found = gru_as_lstm()
            return True, f"Your gate is {convention}. " + _conditions(dict(zip(found.case, map(float, found.outputs), strict=True)))
    causes = {
        "has the same gate twice; tied means i = 1 − f": gate * h + gate * new,
        "leaves the input gate open (i = 1)": gate * h + new,
        "leaves the forget gate open (f = 1)": h + gate * new,
        "keeps the LSTM's tanh at the output": np.tanh(gate * h + (1 - gate) * new),
    }
    for cause, value in causes.items():
        if np.allclose(given, value):
            return False, f"your function {cause}: c_t = f ⊙ c_{{t−1}} + (1 − f) ⊙ c̃_t."
    apart = min(float(np.abs(given - value).max()) for value in right.values())
    return False, f"your function is not z ⊙ h + (1 − z) ⊙ n, whichever way round z is: it differs by {number(apart)}."


# -- 4: parameters --------------------------------------------------------------------------------------------------------------


def _parameters(answer: Any) -> tuple[bool, str]:
    inputs, hidden = 256, 512
    if callable(answer):
        explanation = ""
        for i, h in ((inputs, hidden), (3, 5), (7, 2)):
            correct, why = _two_counts(_numbers(4, _called(4, answer, i, h), 2), i, h)
            if not correct:
                return False, why if (i, h) == (inputs, hidden) else f"with I = {i} and H = {h}: {why}"
            explanation = explanation or why
        return True, explanation
    if isinstance(answer, Mapping):
        by_name = {str(name).strip().lower(): value for name, value in answer.items()}
        answer = [by_name[name] for name in ("lstm", "gru") if name in by_name] or answer
    elif isinstance(answer, str):
        plain = re.sub(r"(?<=\d)[ '’\u202f](?=\d{3}\b)", "", answer)
        plain = re.sub(r"(\d+(?:\.\d+)?)\s*(?:M|million)\b", r"\1·1000000", plain)
        named = [_counted(part) for part in re.split(r"(?=\b(?:lstm|gru)\b)", plain, flags=re.I)]
        first = re.search(r"lstm|gru", plain, re.I)
        answer = plain
        if len(named) == 3 and first is not None:
            answer = "; ".join(named[1:] if first[0].lower() == "lstm" else named[:0:-1])
    return _two_counts(_numbers(4, answer, 2), inputs, hidden)


def _counted(part: str) -> str:
    """What follows a cell's name, up to the words that lead to the next one."""
    plain = re.sub(r"^(lstm|gru)\b(\s+(cell|has|have|is))*", "", part.strip(), flags=re.I)
    return re.sub(r"[\s,;.]*(\b(and|an?|the)\b\s*)*$", "", plain, flags=re.I)


def _two_counts(given: Sequence[float], inputs: int, hidden: int) -> tuple[bool, str]:
    counted = dict(zip((found := parameter_count(inputs=inputs, hidden=hidden)).cell, map(int, found.parameters), strict=True))
    lstm, gru, gru_after = counted["LSTM"], counted["GRU, reset before"], counted["GRU, reset after"]
    if len(given) == 2 and list(given) == [gru, lstm]:
        return False, "the two are swapped: the LSTM has four blocks, the GRU three."
    remarks, wrong = [], []
    for name, gates, right, value in zip(("LSTM", "GRU"), (4, 3), (lstm, gru), given, strict=False):
        if value == right:
            continue
        if value == right + gates * hidden:
            remarks.append(f"{name}: {value:,.0f} has a second bias vector, as PyTorch does, which changes nothing that can be learned")
        elif name == "GRU" and value == gru_after:
            remarks.append(f"GRU: {value:,.0f} has the bias b_hn of reset after the product")
        else:
            wrong.append(f"{name}: {value:,.0f} {_why_not_count(value, gates, inputs, hidden)}.")
    if wrong:
        return False, " ".join(wrong)
    sizes = f"{hidden} · {inputs + hidden} + {hidden}"
    remarks.append(f"LSTM 4({sizes}) = {lstm:,}; GRU 3({sizes}) = {gru:,}, {1 - gru / lstm:.0%} fewer; counted in the cells themselves")
    if len(given) == 1:
        return False, "that is the LSTM's count; the GRU's is missing."
    return True, ". ".join(remarks) + "."


def _why_not_count(value: float, gates: int, inputs: int, hidden: int) -> str:
    """What a wrong count may have come from."""
    both = inputs + hidden
    other = 7 - gates
    causes = {
        gates * hidden * both: f"leaves out the biases: each of the {gates} blocks has {hidden} more",
        gates * hidden * both + hidden: f"has one bias vector for all; each of the {gates} blocks has its own",
        gates * (hidden * inputs + hidden): f"leaves out the weights on h, {gates} · {hidden} · {hidden}",
        gates * (hidden * hidden + hidden): f"leaves out the weights on x, {gates} · {hidden} · {inputs}",
        gates * hidden * inputs: "leaves out the weights on h, and the biases",
        hidden * both + hidden: f"is one block; there are {gates}",
        other * (hidden * both + hidden): f"has {other} blocks; there are {gates}: " + _BLOCKS[gates],
        2 * (hidden * both + hidden): f"has two blocks; there are {gates}: " + _BLOCKS[gates],
        gates * (inputs * both + inputs): f"has I and H the wrong way round: every block has H = {hidden} rows",
    }
    for wrong, cause in causes.items():
        if value == wrong:
            return cause
    right = gates * (hidden * both + hidden)
    apart = f"is {abs(value - right):,.0f} too {'many' if value > right else 'few'}"
    return f"{apart}: {gates} blocks of {hidden} · ({inputs} + {hidden}) weights and {hidden} biases"


_BLOCKS = {4: "three gates and the candidate", 3: "two gates and the candidate"}


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        "W has the largest eigenvalue 0.95. What fraction of a gradient is left after 50 steps (and after 100)?",
        "a number, a text such as '7.7 %' or '0.95^50', two of them, or a function of (|λ|, steps)",
        _fraction,
        "7.7 %; 0.59 %",
        {"multiplied by 50": 0.95 * 50, "what is lost": 1 - 0.95**50, "the logarithm": 50 * math.log(0.95), "another number of steps": 0.2},
    ),
    2: Exercise(
        "What does a forget gate of 0 at all steps do to the cell? What one of 1?",
        "two texts, one that speaks of f = 0 and f = 1, the two factors, or a function (f, c, written) → c'",
        _forget,
        "f = 0: the cell is reset at each step. f = 1: it accumulates for ever.",
        {
            "swapped": ("it keeps everything", "it is reset"),
            "gates tied": lambda f, c, written: f * c + (1 - f) * written,
            "factors": (0.5, 1.0),
        },
    ),
    3: Exercise(
        "Show that a GRU is about an LSTM: which of its gates are tied or fixed, and what is its cell?",
        "equations such as 'f = z, i = 1 - z, o = 1, c = h' or a dict of them, or a function (h, gate, candidate) → h'",
        _tied,
        "i = 1 - f, o = 1, c = h",
        {
            "equal gates": "i = f, o = 1, c = h",
            "no output gate": "i = 1 - f, c = h",
            "own tanh": lambda h, z, n: np.tanh(z * h + (1 - z) * n),
        },
    ),
    4: Exercise(
        "How many parameters does an LSTM cell have, and a GRU cell, with I = 256 and H = 512?",
        "two numbers or formulas, LSTM first, a dict or text with names, or a function of (I, H)",
        _parameters,
        "LSTM: 1,574,912; GRU: 1,181,184",
        {
            "no biases": (1_572_864, 1_179_648),
            "three blocks": (1_181_184, 1_181_184),
            "no weights on h": (4 * (512 * 256 + 512), 1_181_184),
        },
    ),
}
"""The exercises by their number."""


# -- 24: all of them ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ExerciseChecks(Measurement):
    """What the checks say of the lecture's answers, and of typical wrong ones.

    Attributes:
        exercise, given, correct, explanation: one entry per answer; the lecture's own is called "the lecture's".
    """

    exercise: tuple[int, ...]
    given: tuple[str, ...]
    correct: tuple[bool, ...]
    explanation: tuple[str, ...]

    def table(self) -> Table:
        """One row per answer."""
        rows = [
            (f"{n}: {given}", "right" if correct else "not yet", said)
            for n, given, correct, said in zip(self.exercise, self.given, self.correct, self.explanation, strict=True)
        ]
        return aligned(("answer", "", "explanation"), rows, "the exercises")

    def claims(self) -> tuple[Claim, ...]:
        """The lecture's answer to each exercise is right by the engine's measurement."""
        return tuple(
            holds(f"exercise {n}", str(EXERCISES[n].model), "right" if correct else said, correct, "the check, which measures, takes it")
            for n, given, correct, said in zip(self.exercise, self.given, self.correct, self.explanation, strict=True)
            if given == LECTURES
        )

    def charts(self) -> tuple[Chart, ...]:
        """How many answers were taken for right."""
        names = [f"exercise {n}" for n in EXERCISES]
        right, wrong = (
            [sum(1 for n, ok in zip(self.exercise, self.correct, strict=True) if n == k and ok is asked) for k in EXERCISES]
            for asked in (True, False)
        )
        return (Chart("bars", "Answers checked", "", "answers", (series("right", names, right), series("not yet", names, wrong))),)


LECTURES = "the lecture's"


@experiment
def exercise_checks() -> ExerciseChecks:
    """Claim (row 24): the answers printed in the lecture are right, and typical wrong ones are told what is wrong with them.

    Example:
        >>> import tinygrad_rnn as tg
        >>> found = tg.experiments.exercise_checks()
        >>> [(n, correct) for n, given, correct in zip(found.exercise, found.given, found.correct) if given == "the lecture's"]
        [(1, True), (2, True), (3, True), (4, True)]
    """
    answers = [
        (n, name, answer) for n, exercise in EXERCISES.items() for name, answer in ((LECTURES, exercise.model), *exercise.wrong.items())
    ]
    found = [check(n, answer) for n, _, answer in answers]
    return ExerciseChecks(
        exercise=tuple(n for n, _, _ in answers),
        given=tuple(name for _, name, _ in answers),
        correct=tuple(one.correct for one in found),
        explanation=tuple(one.explanation for one in found),
    )
