"""Layers and losses against PyTorch's, in float64: values and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn import nn

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

RTOL = 1e-12
functional = torch.nn.functional


def both(*shape: int, seed: int = 0) -> tuple[Any, Any]:
    array = np.random.default_rng(seed).standard_normal(shape)
    return tg.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)


def close(what: str, ours: Any, theirs: Any, unit: float = 0.0) -> None:
    """Equal to 1e-12 of the largest entry (or of ``unit``, for what is 0 but for rounding)."""
    found, expected = ours.value, theirs.detach().numpy()
    assert found.shape == expected.shape, what
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=RTOL * max(unit, np.abs(expected).max(initial=0.0)), err_msg=what)


def shaken(module: Any) -> dict[str, Any]:
    """PyTorch's parameters by name, moved off zeros and ones."""
    draw = np.random.default_rng(9)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter += 0.1 * torch.tensor(draw.standard_normal(tuple(parameter.shape)))
    return dict(module.named_parameters())


def translated(w: dict[str, Any], prefix: str = "", to: str = "") -> dict[str, Any]:
    """The weights of a MultiheadAttention under our names."""
    state = {}
    for kind in ("weight", "bias"):
        if prefix + "in_proj_" + kind in w:
            parts = w[prefix + "in_proj_" + kind].chunk(3)
            state |= {f"{to}{name}.{kind}": part for name, part in zip(("query", "key", "value"), parts, strict=True)}
            state[f"{to}out.{kind}"] = w[f"{prefix}out_proj.{kind}"]
    return state


def loaded(ours: Any, state: dict[str, Any]) -> Any:
    ours.load_state_dict({name: value.detach().numpy() for name, value in state.items()})
    return ours


def same_gradients(ours: Any, expected: dict[str, Any]) -> None:
    """Every parameter's gradient; that of a key's bias is 0 but for rounding."""
    unit = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, parameter in ours.named_parameters():
        close(f"gradient of {name}", parameter.grad, expected[name], unit if "key" in name else 0.0)


def gradients(w: dict[str, Any]) -> dict[str, Any]:
    return {name: parameter.grad for name, parameter in w.items()}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lengths", [None, [5, 1, 3], "unbatched"], ids=["whole", "padded", "unbatched"])
def test_self_attention(heads: int, causal: bool, bias: bool, batch_first: bool, lengths: Any) -> None:
    """nn.MultiheadAttention of a sequence with itself: outputs, weights of every head, all gradients."""
    theirs = torch.nn.MultiheadAttention(6, heads, bias=bias, batch_first=batch_first, dtype=torch.float64)
    w = shaken(theirs)
    ours = loaded(nn.SelfAttention(6, heads, causal=causal, bias=bias, batch_first=batch_first), translated(w))
    shape = (5, 6) if lengths == "unbatched" else (3, 5, 6) if batch_first else (5, 3, 6)
    counts = None if lengths == "unbatched" else lengths
    x, x_theirs = both(*shape)
    y, shown = ours(x, counts, return_weights=True)
    options = {
        "attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None,
        "key_padding_mask": None if counts is None else torch.arange(5) >= torch.tensor(counts)[:, None],
        "average_attn_weights": False,
    }
    y_theirs, shown_theirs = theirs(x_theirs, x_theirs, x_theirs, **options)
    close("outputs", y, y_theirs)
    close("weights", shown, shown_theirs)
    factor = np.random.default_rng(1).standard_normal(shape)
    ((y * factor).sum() + (shown * shown).sum()).backward()
    ((y_theirs * torch.tensor(factor)).sum() + (shown_theirs * shown_theirs).sum()).backward()
    close("gradient of x", x.grad, x_theirs.grad)
    same_gradients(ours, translated(gradients(w)))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_transformer_block(norm_first: bool, causal: bool, batch_first: bool, padded: bool) -> None:
    """nn.TransformerEncoderLayer: outputs and all gradients."""
    theirs = torch.nn.TransformerEncoderLayer(
        6, 2, 10, dropout=0.0, activation="relu", norm_first=norm_first, batch_first=batch_first, dtype=torch.float64
    )
    w = shaken(theirs)
    plain = ("linear1", "linear2", "norm1", "norm2")

    def ours_named(values: dict[str, Any]) -> dict[str, Any]:
        return {n: v for n, v in values.items() if n.startswith(plain)} | translated(values, "self_attn.", "attention.")

    ours = loaded(nn.TransformerBlock(6, 2, 10, causal=causal, norm_first=norm_first, batch_first=batch_first), ours_named(w))
    x, x_theirs = both(*((3, 4, 6) if batch_first else (4, 3, 6)))
    lengths = [4, 1, 2] if padded else None
    y = ours(x, lengths)
    y_theirs = theirs(
        x_theirs,
        src_mask=torch.ones(4, 4, dtype=torch.bool).triu(1) if causal else None,
        src_key_padding_mask=torch.arange(4) >= torch.tensor(lengths)[:, None] if lengths else None,
        is_causal=causal,
    )
    close("outputs", y, y_theirs)
    factor = np.random.default_rng(1).standard_normal(x.shape)
    (y * factor).sum().backward()
    (y_theirs * torch.tensor(factor)).sum().backward()
    close("gradient of x", x.grad, x_theirs.grad)
    same_gradients(ours, ours_named(gradients(w)))


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 0.5}])
def test_layer_norm(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """nn.LayerNorm: outputs and all gradients, over one axis and over two, with every option."""
    theirs = torch.nn.LayerNorm(shape, dtype=torch.float64, **options)
    w = shaken(theirs)
    ours = loaded(nn.LayerNorm(shape, **options), w)
    x, x_theirs = both(5, 2, *shape)
    y, y_theirs = ours(x), theirs(x_theirs)
    close("outputs", y, y_theirs)
    (y * y * y).sum().backward()
    (y_theirs * y_theirs * y_theirs).sum().backward()
    close("gradient of x", x.grad, x_theirs.grad)
    if w:
        same_gradients(ours, gradients(w))


def test_sequential_names_and_values() -> None:
    """nn.Sequential: a state_dict goes from one to the other; slices, too."""
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)).double()
    ours = nn.Sequential(nn.Linear(3, 4), np.tanh, nn.LayerNorm(4), nn.Linear(4, 2))
    loaded(ours, dict(theirs.named_parameters()))
    assert list(ours[2:].state_dict()) == list(theirs[2:].state_dict())
    x, x_theirs = both(5, 3)
    y, y_theirs = ours(x), theirs(x_theirs)
    close("outputs", y, y_theirs)
    (y * y).sum().backward()
    (y_theirs * y_theirs).sum().backward()
    close("gradient of x", x.grad, x_theirs.grad)
    same_gradients(ours, gradients(dict(theirs.named_parameters())))


def test_embedding_padding() -> None:
    """nn.Embedding with padding_idx: values and gradient."""
    theirs = torch.nn.Embedding(5, 3, padding_idx=2, dtype=torch.float64)
    ours = loaded(nn.Embedding(5, 3, padding_idx=2), dict(theirs.named_parameters()))
    indices = np.array([[2, 0, 4], [4, 2, 2]])
    y, y_theirs = ours(indices), theirs(torch.tensor(indices))
    close("vectors", y, y_theirs)
    (y * y + y).sum().backward()
    (y_theirs * y_theirs + y_theirs).sum().backward()
    close("gradient", ours.weight.grad, theirs.weight.grad)


def test_dropout_has_the_same_law() -> None:
    """nn.Dropout: the same two values, in the same shares; nothing in eval, zeros for p = 1."""
    x = np.ones(20_000)
    for p in (0.1, 0.5, 0.9):
        found, expected = nn.Dropout(p, rng=0)(x).value, torch.nn.Dropout(p)(torch.tensor(x)).numpy()
        np.testing.assert_allclose(np.unique(found), np.unique(expected), rtol=1e-12)
        assert (found == 0).mean() == pytest.approx((expected == 0).mean(), abs=0.02)
    assert not torch.nn.Dropout(1.0)(torch.tensor(x)).any()
    assert not nn.Dropout(1.0)(x).value.any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignore", [-100, 1])
def test_cross_entropy(reduction: str, ignore: int) -> None:
    """functional.cross_entropy with ignore_index, under every reduction: value and gradient."""
    x, x_theirs = both(6, 3)
    targets = np.array([0, ignore, 2, 2, ignore, 0])
    loss = tg.cross_entropy(x, targets, ignore_index=ignore, reduction=reduction)
    theirs = functional.cross_entropy(x_theirs, torch.tensor(targets), ignore_index=ignore, reduction=reduction)
    close("loss", loss, theirs)
    (loss * loss).sum().backward()
    (theirs * theirs).sum().backward()
    close("gradient", x.grad, x_theirs.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_mse_and_bce(reduction: str, shape: tuple[int, ...]) -> None:
    """mse_loss and binary_cross_entropy_with_logits under every reduction: values and both gradients."""
    for ours, theirs in ((tg.mse, functional.mse_loss), (tg.bce_with_logits, functional.binary_cross_entropy_with_logits)):
        (x, x_theirs), (y, y_theirs) = both(*shape), both(*shape, seed=1)
        loss = ours(x, tg.sigmoid(y), reduction=reduction)
        loss_theirs = theirs(x_theirs, torch.sigmoid(y_theirs), reduction=reduction)
        close("loss", loss, loss_theirs)
        (loss * loss).sum().backward()
        (loss_theirs * loss_theirs).sum().backward()
        close("gradient of the prediction", x.grad, x_theirs.grad)
        close("gradient of the target", y.grad, y_theirs.grad)


def test_bce_at_large_logits() -> None:
    """binary_cross_entropy_with_logits at ±1000: the same losses, and finite gradients."""
    array, targets = np.array([1000.0, 1000.0, -1000.0, -1000.0, 0.0]), np.array([1.0, 0.0, 1.0, 0.0, 0.5])
    x, x_theirs = tg.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    loss = tg.bce_with_logits(x, targets, reduction="none")
    theirs = functional.binary_cross_entropy_with_logits(x_theirs, torch.tensor(targets), reduction="none")
    close("loss", loss, theirs)
    loss.sum().backward()
    theirs.sum().backward()
    close("gradient", x.grad, x_theirs.grad)
