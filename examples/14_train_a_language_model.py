"""What does a recurrent network learn from text in two minutes?

A character language model on Python's own help topics: an LSTM reads the text in 32 parallel streams and predicts the character that
follows. The gradient is cut every 64 characters, the state is carried on (truncated BPTT), so memory stays constant however long the
text is. The last tenth of the text is held out. Beside its loss stand those of three models that only count, all of them on the same
characters (see ``counted``): the LSTM is to be better than all of them, since it remembers more than one character.

    python examples/14_train_a_language_model.py --help

Ctrl-C saves the run and says how to go on with it; gone on with, it ends where it would have ended without the interruption, to the
last bit.

Measured with Python 3.11 on a machine with two cores, of which NumPy was given one (OPENBLAS_NUM_THREADS=1) since other programs
were running: 1,500 updates in 104 seconds, validations included. The LSTM is past all counting after the first 100 updates, in 7 seconds.

    uniform                                       4.635 nats  6.687 bits a character
    unigram                                       3.238 nats  4.671 bits a character
    bigram                                        2.323 nats  3.352 bits a character
    bigram that has counted the validation text   2.143 nats  3.092 bits a character
    this LSTM after 1500 updates                  1.204 nats  1.737 bits a character

Expected output of the quick setting, ``--quick``, which the tests run; it says less, since each version of Python has another text:

    better than a guess among all characters:              True
    better than counting characters:                       True
    better than counting pairs:                            True
    stopped on the way and resumed, equal to the last bit: True
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim, tasks
from tinygrad_rnn.tasks import streams

SETTINGS: dict[str, tuple[Any, str]] = {
    "cell": ("lstm", "lstm, gru or rnn"),
    "hidden": (256, "units in a layer"),
    "layers": (1, "layers"),
    "embedding": (64, "length of the vector that stands for a character"),
    "dropout": (0.2, "probability that an entry of what comes out of a layer becomes 0"),
    "streams": (32, "places of the text that are read at the same time"),
    "segment": (64, "characters between two cuts of the gradient"),
    "steps": (1500, "updates"),
    "lr": (8e-3, "highest learning rate"),
    "clip": (0.5, "largest norm of the gradient"),
    "every": (100, "updates between two validations, after each of which the run is saved"),
    "seed": (0, "seed of weights, dropout and sample"),
}
QUICK = {"hidden": 64, "embedding": 16, "streams": 32, "segment": 32, "steps": 300, "lr": 1e-2, "every": 150}
HELD_OUT = 0.1
VALIDATION_STREAMS = 16


class Text:
    """A text as numbers, its beginning for training and its end for validation."""

    def __init__(self, text: str) -> None:
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.alphabet = sorted(set(text))
        number_of = {character: number for number, character in enumerate(self.alphabet)}
        numbers = np.array([number_of[character] for character in text])
        end = len(numbers) - int(HELD_OUT * len(numbers))
        self.training, self.validation = numbers[:end], numbers[end:]


def counted(text: Text) -> dict[str, float]:
    """The cross-entropy of the validation text, in nats a character, under models that count in the training text.

        uniform   p(b) = 1/V, for V characters
        unigram   p(b) = (n(b) + 1)/(N + V)
        bigram    p(b | a) = (n(a, b) + p(b))/(n(a) + 1): every character a has been seen once more, followed by an average one

    The last row is the conditional entropy of the validation text itself, p(b | a) = n(a, b)/n(a) counted there: what no model that
    looks at one character only can beat.
    """
    size = len(text.alphabet)
    inputs, targets = streams(text.validation, VALIDATION_STREAMS)

    def pairs(first: Any, second: Any) -> Any:
        found = np.zeros((size, size))
        np.add.at(found, (first, second), 1.0)
        return found

    single = (np.bincount(text.training, minlength=size) + 1.0) / (len(text.training) + size)
    seen = pairs(text.training[:-1], text.training[1:])
    double = (seen + single) / (seen.sum(axis=1, keepdims=True) + 1.0)
    own = pairs(inputs, targets)
    known = own / np.maximum(own.sum(axis=1, keepdims=True), 1.0)
    return {
        "uniform": math.log(size),
        "unigram": float(-np.log(single[targets]).mean()),
        "bigram": float(-np.log(double[inputs, targets]).mean()),
        "bigram that has counted the validation text": float(-np.log(known[inputs, targets]).mean()),
    }


class LanguageModel(nn.Module):
    """Character → vector → recurrent layers → scores of the character that follows."""

    def __init__(self, size: int, settings: Mapping[str, Any], rng: np.random.Generator) -> None:
        super().__init__()
        hidden, width, layers = (settings[name] for name in ("hidden", "embedding", "layers"))
        options: dict[str, Any] = {"dtype": np.float32, "rng": rng}
        self.embedding = nn.Embedding(size, width, **options)
        between = settings["dropout"] if layers > 1 else 0.0
        self.layers = getattr(nn, settings["cell"].upper())(width, hidden, layers, dropout=between, **options)
        self.dropout = nn.Dropout(settings["dropout"], rng=rng)
        self.readout = nn.Linear(hidden, size, **options)

    def forward(self, numbers: Any, state: Any = None) -> tuple[Any, Any]:
        outputs, state = self.layers(self.embedding(numbers), state)  # (T, B, H)
        return self.readout(self.dropout(outputs)), state  # (T, B, V)


class Run:
    """A training run: everything that its next update depends on."""

    def __init__(self, text: Text, settings: Mapping[str, Any]) -> None:
        self.text = text
        self.settings = dict(settings)
        self.random = np.random.default_rng(settings["seed"])
        self.model = LanguageModel(len(text.alphabet), settings, self.random)
        self.optimizer = optim.AdamW(self.model.named_parameters(), lr=settings["lr"], betas=(0.9, 0.99))
        warm_up = max(1, settings["steps"] // 50)
        then = optim.CosineLR(self.optimizer, max(1, settings["steps"] - warm_up), min_lr=settings["lr"] / 50)
        self.schedule = optim.WarmUp(self.optimizer, warm_up, then)
        self.clipped = optim.ClipCounter()
        self.inputs, self.targets = streams(text.training, settings["streams"])
        self.state: Any = None
        self.position = self.step = 0
        self.losses: list[float] = []  # since the last validation
        self.validation: dict[int, float] = {}  # loss by step

    def update(self) -> None:
        """Read one segment and learn from it."""
        end = self.position + self.settings["segment"]
        self.model.zero_grad()
        scores, state = self.model(self.inputs[self.position : end], self.state)
        loss = tg.cross_entropy(scores, self.targets[self.position : end])
        loss.backward()
        optim.clip_grad_norm(self.model.parameters(), self.settings["clip"], error_if_nonfinite=True, counter=self.clipped)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(loss.item())
        self.step += 1
        self.position, self.state = end, state.detach()
        if end >= len(self.inputs):  # each stream is at its end: begin anew
            self.position, self.state = 0, None

    def validate(self) -> float:
        """The mean loss over the text that was held out, in nats a character, read in streams that begin with a state of zeros."""
        inputs, targets = streams(self.text.validation, VALIDATION_STREAMS)
        total: float = 0.0
        state = None
        self.model.eval()
        with tg.no_grad():
            for begin in range(0, len(inputs), 256):
                scores, state = self.model(inputs[begin : begin + 256], state)
                total += tg.cross_entropy(scores, targets[begin : begin + 256], reduction="sum").item()
        self.model.train()
        return total / int(targets.size)

    def sample(self, length: int, temperature: float) -> str:
        """Text that the model writes: each character is drawn from its probabilities, sharpened by a temperature below 1."""
        random = np.random.default_rng(self.settings["seed"])  # of its own, so that it does not alter the run
        number, state, written = self.text.alphabet.index("\n") if "\n" in self.text.alphabet else 0, None, []
        self.model.eval()
        with tg.no_grad():
            for _ in range(length):
                scores, state = self.model(np.array([[number]]), state)
                chances = tg.softmax(scores.value[0, 0].astype(np.float64) / temperature)
                number = int(random.choice(len(chances), p=chances))
                written.append(self.text.alphabet[number])
        self.model.train()
        return "".join(written)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "text": self.text.digest,
            "settings": self.settings,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": self.random.bit_generator.state,
            "clipped": [self.clipped.calls, self.clipped.engaged],
            "state": None if self.state is None else list(self.state),
            "position": self.position,
            "step": self.step,
            "losses": self.losses,
            "validation": {str(step): loss for step, loss in self.validation.items()},
        }

    @classmethod
    def resumed(cls, text: Text, saved: Mapping[str, Any]) -> Run:
        """The run that a checkpoint holds."""
        if saved.get("text") != text.digest:
            raise tg.errors.StateError(
                "resume: the checkpoint is of another text (or no language model). Give the same --text, under the same Python"
            )
        run = cls(text, saved["settings"])
        run.model.load_state_dict(saved["model"])
        run.optimizer.load_state_dict(saved["optimizer"])
        run.schedule.load_state_dict(saved["schedule"])
        run.random.bit_generator.state = saved["random"]
        run.clipped = optim.ClipCounter(*saved["clipped"])
        run.state = None if saved["state"] is None else tuple(saved["state"])
        run.position, run.step, run.losses = saved["position"], saved["step"], saved["losses"]
        run.validation = {int(step): loss for step, loss in saved["validation"].items()}
        return run


@contextmanager
def interruptions() -> Iterator[list[int]]:
    """Collects Ctrl-C instead of raising it in the middle of an update; a second one raises."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def train(run: Run, checkpoint: Path, console: Console, seconds: float = math.inf) -> bool:
    """Go on to the last step, or until the time is over, or until Ctrl-C; return whether it was that."""
    steps, every = run.settings["steps"], run.settings["every"]
    columns = (BarColumn(), TextColumn("{task.completed}/{task.total}  {task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    start = time.monotonic()
    with interruptions() as asked, Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=steps, completed=run.step)
        while run.step < steps and not asked and time.monotonic() - start < seconds:
            run.update()
            progress.update(bar, completed=run.step, description=f"loss {run.losses[-1]:.3f}")
            if run.step % every == 0 or run.step == steps:
                run.validation[run.step] = run.validate()
                line = f"{run.step:6}  {time.monotonic() - start:5.0f} s  {np.mean(run.losses):8.3f}  {run.validation[run.step]:10.3f}"
                run.losses = []
                tg.save(checkpoint, run.state_dict())
                progress.console.print(line, markup=False, highlight=False)
    tg.save(checkpoint, run.state_dict())
    return bool(asked)


def report(run: Run, temperature: float, console: Console) -> None:
    """The losses beside those of counting, and a sample."""

    def row(name: str, nats: float) -> None:
        console.print(f"{name:44}  {nats:5.3f} nats  {nats / math.log(2):5.3f} bits a character", highlight=False)

    console.print()
    for name, nats in counted(run.text).items():
        row(name, nats)
    best = min(run.validation, key=run.validation.__getitem__)
    row(f"this {run.settings['cell'].upper()} after {run.step} updates", run.validation[run.step])
    if best != run.step:
        row(f"its best, after {best}", run.validation[best])
    console.print(
        f"\nClipping engaged in {run.clipped.fraction:.1%} of the updates. A sample at temperature {temperature:g}:\n", highlight=False
    )
    console.print(run.sample(600, temperature), markup=False, highlight=False, soft_wrap=True)


def checked(name: str, kind: type) -> Any:
    """What turns a setting's text into a number: counts are whole and at least 1, seed and dropout may be 0."""

    def convert(text: str) -> Any:
        number = kind(text)
        if not math.isfinite(number) or number < 0 or (number == 0 and name not in ("seed", "dropout")):
            raise ValueError
        return number

    convert.__name__ = "number" if kind is float else "whole number"  # as argparse calls it
    return convert


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Train a character language model.", allow_abbrev=False)
    for name, (default, words) in SETTINGS.items():
        if name == "cell":
            made.add_argument("--cell", choices=("lstm", "gru", "rnn"), help=f"(default {default})")
        else:
            made.add_argument(f"--{name}", type=checked(name, type(default)), metavar="N", help=f"{words} (default {default})")
    made.add_argument("--minutes", type=float, metavar="N", default=math.inf, help="stop and save after this time; --resume goes on")
    made.add_argument("--temperature", type=float, metavar="N", default=0.7, help="of the sample, above 0 (default 0.7)")
    made.add_argument("--text", metavar="FILE", help="a UTF-8 text to read instead of Python's help topics")
    place = Path(tempfile.gettempdir()) / "language-model.npz"
    made.add_argument("--checkpoint", metavar="FILE", type=Path, default=place, help=f"where the run is saved (default {place})")
    made.add_argument("--resume", metavar="FILE", type=Path, help="go on with a saved run, with its settings, and save it there again")
    made.add_argument("--quick", action="store_true", help="the few seconds of it that the tests run")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        quick()
        return 0
    try:
        return job(options)
    except KeyboardInterrupt:
        print("interrupted for the second time; the run is as it was last saved", file=sys.stderr)
        return 130
    except (tg.errors.TinygradError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def job(options: argparse.Namespace) -> int:
    console = Console()
    given = {name: value for name in SETTINGS if (value := getattr(options, name)) is not None}
    if options.resume and given:
        raise tg.errors.ArgumentError(f"resume: a saved run has its own settings; leave out {', '.join(f'--{name}' for name in given)}")
    if not options.temperature > 0:
        raise tg.errors.ArgumentError(f"temperature: expected a number above 0, got {options.temperature}")
    text = Text(tasks.english() if options.text is None else tasks.read_text(options.text))
    checkpoint = options.resume or options.checkpoint
    run = Run.resumed(text, tg.load(checkpoint)) if options.resume else Run(text, defaults() | given)
    tg.save(checkpoint, run.state_dict())  # if that is not possible, better now than after the work
    sizes = f"{len(text.training)} characters to train on, {len(text.validation)} held out, {len(text.alphabet)} different ones"
    console.print(f"{sizes}\n\n  step     time  training  validation", highlight=False)
    interrupted = train(run, checkpoint, console, 60 * options.minutes)
    if run.step == run.settings["steps"]:
        report(run, options.temperature, console)
    else:
        console.print(f"Stopped after {run.step} of {run.settings['steps']} steps and saved. Go on with\n", highlight=False)
        again = ["python", sys.argv[0], "--resume", str(checkpoint), *(["--text", options.text] if options.text else [])]
        console.print(shlex.join(again), markup=False, highlight=False, soft_wrap=True)
    return 130 if interrupted else 0


def defaults() -> dict[str, Any]:
    return {name: default for name, (default, _) in SETTINGS.items()}


def quick() -> None:
    """A few seconds of it, once in one go and once in two."""
    text, console = Text(tasks.english()), Console(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = (Path(folder) / name for name in ("whole.npz", "parts.npz"))
        run = Run(text, defaults() | QUICK)
        train(run, whole, console)
        first = Run(text, defaults() | QUICK)
        for _ in range(100):
            first.update()
        tg.save(parts, first.state_dict())
        train(Run.resumed(text, tg.load(parts)), parts, console)
        equal = whole.read_bytes() == parts.read_bytes()
    loss, limits = run.validation[run.step], counted(text)
    verdicts = {
        "better than a guess among all characters:": loss < limits["uniform"],
        "better than counting characters:": loss < limits["unigram"],
        "better than counting pairs:": loss < limits["bigram"],
        "stopped on the way and resumed, equal to the last bit:": equal,
    }
    for words, verdict in verdicts.items():
        print(f"{words:54} {verdict}")


if __name__ == "__main__":
    sys.exit(main())
