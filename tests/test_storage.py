"""Files: what goes in comes out, bit for bit; whatever else a file holds gives one clear error and does nothing."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_rnn as tg
from tinygrad_rnn import files, nn
from tinygrad_rnn.errors import ArgumentError, DtypeError, StorageError

safetensors = pytest.importorskip("safetensors.numpy")

both = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int8", "uint64", "uint8", "bool", "complex64"]
SCALARS = [np.float64, np.float32, np.int64, np.int8, np.bool_]
arrays = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))
scalars = st.sampled_from(SCALARS).flatmap(lambda kind: st.integers(0, 100).map(kind))
values = st.none() | st.booleans() | st.integers() | st.integers(2**127, 2**128) | st.floats() | st.text() | arrays | scalars
words = st.sampled_from(
    ["", "a", "a/b", "b", "a.b", "../../x", "/etc/x", "..", "gewicht_é", "C:\\x", "__metadata__", "__tinygrad_rnn__", "a\0b"]
)
keys = words | st.text()
states = st.dictionaries(
    keys,
    st.recursive(
        values,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=2).map(tuple),
        max_leaves=8,
    ),
    max_size=4,
)


def same(one: Any, two: Any) -> bool:
    """Equal in type, nesting, order, dtype, shape and bytes."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, (np.ndarray, np.generic)):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return repr(one) == repr(two)  # tells −0.0 from 0.0, and NaN is itself


MODEL = {"model": {"lstm.weight": np.arange(6.0).reshape(2, 3), "bias": np.zeros(0, np.float32)}, "epoch": 3, "note": "é", "rate": 0.1}


# -- round trips ----------------------------------------------------------------------------------------------------------------


@both
@given(state=states)
def test_what_is_saved_is_loaded(suffix: str, state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any nesting of arrays and plain values comes back with its types, order and bytes, whatever its keys are called."""
    path = tmp_path_factory.mktemp("state") / f"state{suffix}"
    tg.save(path, state)
    assert same(tg.load(path), state)


@both
def test_a_module_and_a_generator(suffix: str, tmp_path: Path) -> None:
    """A run is one dict: the model's state, the random generator's, the epoch. It goes on where it stopped."""
    one, two, rng = nn.LSTM(3, 4, rng=0), nn.LSTM(3, 4, rng=1), np.random.default_rng(5)
    tg.save(tmp_path / f"run{suffix}", {"model": one.state_dict(), "rng": rng.bit_generator.state, "epoch": 3})
    run = tg.load(str(tmp_path / f"run{suffix}"))
    two.load_state_dict(run["model"])
    x = np.ones((5, 2, 3))
    assert np.array_equal(one(x)[0].value, two(x)[0].value)
    other = np.random.default_rng()
    other.bit_generator.state = run["rng"]
    assert other.random() == rng.random()


@both
def test_tensors_and_layouts(suffix: str, tmp_path: Path) -> None:
    """Tensors come back as arrays; transposed, sliced and big-endian ones in C order and the machine's byte order, writable."""
    matrix = np.arange(12.0).reshape(3, 4)
    given = {"t": tg.tensor(matrix), "f": np.asfortranarray(matrix), "s": matrix[::2, ::-1], "big": matrix.astype(">f8")}
    tg.save(tmp_path / f"x{suffix}", given)
    found = tg.load(tmp_path / f"x{suffix}")
    for name, value in given.items():
        assert type(found[name]) is np.ndarray
        assert found[name].dtype == np.float64
        assert np.array_equal(found[name], value.value if isinstance(value, tg.Tensor) else value)
        found[name][0] = 1.0


def test_wide_numbers_need_npz(tmp_path: Path) -> None:
    """complex128 is kept by .npz and refused by name for .safetensors, which has no word for it; no file is made."""
    state = {"model": {"z": np.array([1j, 2.0])}}
    tg.save(tmp_path / "z.npz", state)
    assert same(tg.load(tmp_path / "z.npz"), state)
    with pytest.raises(DtypeError, match=r"save: \.safetensors has no word for the dtype complex128 of model/z\. Use \.npz"):
        tg.save(tmp_path / "z.safetensors", state)
    assert os.listdir(tmp_path) == ["z.npz"]


@both
def test_same_state_same_bytes(suffix: str, tmp_path: Path) -> None:
    """Saving twice gives the same file."""
    for name in ("one", "two"):
        tg.save(tmp_path / (name + suffix), MODEL)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_other_programs_read_our_files(tmp_path: Path) -> None:
    """The arrays stand in the file under their paths, for NumPy and for the library safetensors."""
    tg.save(tmp_path / "m.npz", MODEL)
    tg.save(tmp_path / "m.safetensors", MODEL)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert np.array_equal(file["model/lstm.weight"], MODEL["model"]["lstm.weight"])
    assert set(safetensors.load_file(tmp_path / "m.safetensors")) == {"model/lstm.weight", "model/bias"}


def test_what_is_written_is_safe_to_unpack_and_strict(tmp_path: Path) -> None:
    """No member's name leads out of the folder where it is unpacked, and the index is JSON as every language reads it."""
    state = {name: np.zeros(1) for name in ("../../x", "..", "a/../../x", "/etc/x", "C:\\x", "con/..", "a//b")}
    tg.save(tmp_path / "m.npz", {**state, "inner": {"..": np.ones(1)}, "numbers": [float("nan"), float("inf"), -float("inf")]})
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        for name in archive.namelist():
            parts = name.removesuffix(".npy").split("/")
            assert all(parts) and not {".", ".."} & set(parts) and "\\" not in name and ":" not in name, name
    with np.load(tmp_path / "m.npz") as file:
        index = file["__tinygrad_rnn__"].tobytes().decode()
    json.loads(index, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@given(state=st.dictionaries(st.from_regex(r"[a-z][a-z./]{0,5}", fullmatch=True), arrays, max_size=3), packed=st.booleans())
def test_foreign_files_are_flat_dicts(state: dict[str, Any], packed: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Arrays that NumPy or safetensors wrote come as a flat dict, compressed or not, in either memory order."""
    folder = tmp_path_factory.mktemp("foreign")
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, array in state.items():
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(array, order="F"))
            archive.writestr(f"{name}.npy", buffer.getvalue())
    safetensors.save_file(state, folder / "a.safetensors")
    assert same(tg.load(folder / "a.npz"), state)
    found = tg.load(folder / "a.safetensors")
    assert same({name: found[name] for name in state}, state) and len(found) == len(state)


def test_numpys_own_writers(tmp_path: Path) -> None:
    """savez and savez_compressed, with numbers, bools, text and big-endian arrays."""
    state = {"a": np.arange(3), "b": np.array(True), "c": np.array(["x", "yz"]), "d": np.eye(2, dtype=">f4")}
    np.savez(tmp_path / "a.npz", **state)
    np.savez_compressed(tmp_path / "b.npz", **state, zeros=np.zeros(10**6))
    state["d"] = np.eye(2, dtype=np.float32)
    assert same(tg.load(tmp_path / "a.npz"), state)
    assert same(tg.load(tmp_path / "b.npz"), state | {"zeros": np.zeros(10**6)})


# -- what cannot be saved -------------------------------------------------------------------------------------------------------


def endless() -> dict[str, Any]:
    state: dict[str, Any] = {}
    state["self"] = state
    return state


@both
@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        ([1], ArgumentError, r"save: expected a dict of names to values, got list\. Did you mean \.state_dict\(\)\?"),
        (nn.Linear(1, 1, rng=0), ArgumentError, r"got Linear\. Did you mean \.state_dict\(\)\?"),
        ({1: 2}, ArgumentError, r"save: the keys of the state must be strings, got 1\. Use str\(key\)"),
        ({"a": {"b": {None: 2}}}, ArgumentError, r"the keys of a/b must be strings, got None"),
        ({"a": [1, object()]}, ArgumentError, r"save: a/1 is of type object; expected arrays, numbers"),
        ({"a": b"x"}, ArgumentError, r"save: a is of type bytes"),
        ({"a": 1j}, ArgumentError, r"save: a is of type complex"),
        ({"a": nn.LSTMState(1.0, 2.0)}, ArgumentError, r"save: a is of type LSTMState"),
        ({"a": 10**5000}, ArgumentError, r"save: a is an int of 16610 bits"),
        ({"a": "x\udc80"}, ArgumentError, r"save: 'x\\udc80' in 'a' has half a surrogate pair"),
        ({"a": {"\ud800\udc00": 1}}, ArgumentError, r"save: '\\ud800\\udc00' in 'a' has half a surrogate pair"),
        ({"a": np.array([None])}, DtypeError, r"save: a has dtype object; expected numbers or bools"),
        ({"a": np.array(["x"])}, DtypeError, r"save: a has dtype <U1; expected numbers or bools. Store text as str"),
        ({"a": np.str_("x")}, DtypeError, r"save: a has dtype <U1"),
        ({"a": np.zeros(2, "M8[s]")}, DtypeError, r"save: a has dtype datetime64\[s\]"),
        ({"a": np.zeros(2, "i4,f8")}, DtypeError, r"save: a has dtype \[\('f0'"),
        (endless(), ArgumentError, r"save: self/self/self/… is more than 64 levels deep\. Does it hold itself\?"),
    ],
)
def test_what_cannot_be_stored_is_named(suffix: str, state: Any, kind: type[Exception], message: str, tmp_path: Path) -> None:
    """The message names the entry by its path and what it is; no file is made."""
    with pytest.raises(kind, match=message):
        tg.save(tmp_path / f"x{suffix}", state)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["model.pt", "model", "model.npz.bak", ".npz"])
def test_other_suffixes(name: str, tmp_path: Path) -> None:
    """The suffix decides the format, another one is refused, and so is what is no path."""
    for call in (lambda: tg.save(tmp_path / name, {}), lambda: tg.load(tmp_path / name)):
        with pytest.raises(ArgumentError, match=r"(save|load): .* ends in '.*'; expected \.npz or \.safetensors"):
            call()
    with pytest.raises(ArgumentError, match="load: expected a path, got BytesIO"):
        tg.load(io.BytesIO())


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    """MODEL.NPZ is an .npz file."""
    tg.save(tmp_path / "MODEL.NPZ", MODEL)
    assert same(tg.load(tmp_path / "MODEL.NPZ"), MODEL)


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, .safetensors says how to install it, and .npz works."""
    tg.save(tmp_path / "a.safetensors", MODEL)
    importing = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return importing(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for call in (lambda: tg.save(tmp_path / "b.safetensors", MODEL), lambda: tg.load(tmp_path / "a.safetensors")):
        with pytest.raises(StorageError) as caught:
            call()
        assert str(caught.value) == (
            ".safetensors: the library that reads and writes these files is not installed: "
            'pip install "tinygrad_rnn[safetensors]", or use .npz'
        )
    tg.save(tmp_path / "a.npz", MODEL)
    assert same(tg.load(tmp_path / "a.npz"), MODEL)


# -- the old file or the new one ------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("fails", ["fsync", "replace", "open"])
def test_an_interrupted_write_leaves_the_old_file(suffix: str, fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while writing, the old file is whole and nothing lies beside it."""
    path = tmp_path / f"x{suffix}"
    tg.save(path, MODEL)

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files if fails == "open" else os, fails, fail, raising=fails != "open")
        with pytest.raises(KeyboardInterrupt):
            tg.save(path, {"epoch": 4})
    with pytest.raises(ArgumentError):
        tg.save(path, {"epoch": 4, "model": object()})
    assert same(tg.load(path), MODEL)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(not hasattr(zipfile, "_get_compressor"), reason="this Python opens members in another way")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of Python 3.14's own half-made member
def test_an_interrupt_while_a_member_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes out as what it is: closing the half-written zip puts no error of its own in its place."""

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile, "_get_compressor", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tg.save(tmp_path / "x.npz", MODEL)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_just_after_the_new_file_has_taken_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes out as what it is, and the new file is whole."""
    path, replace = tmp_path / "x.npz", os.replace

    def late(*names: Any) -> None:
        replace(*names)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(KeyboardInterrupt):
        tg.save(path, MODEL)
    assert same(tg.load(path), MODEL)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="this system has no permissions of that kind")
def test_permissions_are_those_of_any_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the process' umask says, which is not moved: another thread may be making files meanwhile, and an interrupt may come."""
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", None)
            tg.save(tmp_path / "x.npz", MODEL)
        assert (tmp_path / "x.npz").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


# -- hostile files --------------------------------------------------------------------------------------------------------------


def refused(path: Path, content: bytes, reason: str = "cannot be read") -> None:
    """The content gives one StorageError that names the file, the reason and a remedy."""
    path.write_bytes(content)
    with pytest.raises(StorageError, match=reason) as caught:
        tg.load(path)
    assert str(caught.value).startswith(f"load: {path} cannot be read as {path.suffix}: ")
    assert "write it again with tg.save" in str(caught.value)
    assert len(str(caught.value)) < 1000


def npy(array: Any = None, header: str = "", data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file: of an array, or with any header and data."""
    if array is not None:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(header)) + header.encode("latin1") + data


def npz(*members: tuple[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=packing)
    return buffer.getvalue()


def claims(shape: str, descr: str = "'<f8'", data: bytes = bytes(8)) -> bytes:
    return npz(("a.npy", npy(header=f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", data=data)))


@both
def test_cut_off_anywhere(suffix: str, tmp_path: Path) -> None:
    """A file that ends early is refused, wherever it ends."""
    path = tmp_path / f"x{suffix}"
    tg.save(path, MODEL)
    content = path.read_bytes()
    for length in range(len(content)):
        refused(path, content[:length])
    refused(path, content[1:])
    if suffix == ".safetensors":
        refused(path, content + b"\0")


@both
@given(place=st.integers(0, 10**6), bits=st.integers(1, 255))
def test_a_damaged_byte(suffix: str, place: int, bits: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A changed byte gives the one error or a state; an .npz file, which has checksums, gives the right state or none."""
    path = tmp_path_factory.mktemp("damaged") / f"x{suffix}"
    tg.save(path, MODEL)
    content = bytearray(path.read_bytes())
    place %= len(content)
    content[place] ^= bits
    path.write_bytes(bytes(content))
    try:
        found = tg.load(path)
    except StorageError:
        return
    assert isinstance(found, dict)
    if suffix == ".npz":
        assert same(found, MODEL)  # the byte was one that says nothing about the arrays


@both
@given(content=st.binary(max_size=300))
def test_noise(suffix: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes at random are refused, also behind a plausible beginning."""
    path = tmp_path_factory.mktemp("noise") / f"x{suffix}"
    refused(path, content)
    refused(path, b"PK\x03\x04" + content)
    refused(path, b"\x93NUMPY\x01\x00" + content)
    refused(path, struct.pack("<Q", len(content)) + content)


FOREIGN = {
    "empty": b"",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "text": b"epoch,loss\n1,0.5\n",
    "html": b"<!doctype html><title>404</title>",
    "pickle": pickle.dumps({"a": np.arange(3)}),
    "npy": npy(np.arange(3)),
    "torch": npz(("model/data.pkl", pickle.dumps({})), ("model/data/0", bytes(8)), ("model/version", b"3\n")),
    "wheel": npz(("a/__init__.py", b"print(1)\n")),
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@both
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(suffix: str, kind: str, tmp_path: Path) -> None:
    """A file of another kind is refused under either suffix."""
    refused(tmp_path / f"x{suffix}", FOREIGN[kind])


@both
def test_one_format_under_the_others_name(suffix: str, tmp_path: Path) -> None:
    """A renamed file is refused."""
    other = ".safetensors" if suffix == ".npz" else ".npz"
    tg.save(tmp_path / f"x{suffix}", MODEL)
    refused(tmp_path / f"y{other}", (tmp_path / f"x{suffix}").read_bytes())


@both
def test_folders_devices_and_nothing(suffix: str, tmp_path: Path) -> None:
    """A folder and a pipe are refused without being opened; a missing file is Python's own error."""
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    for name in ("folder", "pipe"):
        with pytest.raises(StorageError, match=rf"load: .*{name}{suffix} is a folder or a device; expected a file"):
            tg.load(tmp_path / f"{name}{suffix}")
    with pytest.raises(FileNotFoundError, match=f"nowhere{suffix}"):
        tg.load(tmp_path / f"nowhere{suffix}")
    with pytest.raises(OSError, match="folder"):
        tg.save(tmp_path / f"folder{suffix}", MODEL)


class Trap:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_are_not_run(tmp_path: Path) -> None:
    """An array of objects in an .npz file is refused before its pickle is looked at; so is a pickle under another name."""
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    refused(tmp_path / "x.npz", npz(("a.npy", npy(trap))), r"'a\.npy' in it is not a plain array of numbers")
    refused(tmp_path / "x.npz", npz(("a.npy", pickle.dumps(trap))), "not a plain array")
    refused(tmp_path / "x.npz", npz(("a.pkl", pickle.dumps(trap))), "'a.pkl' in it is no array")
    refused(tmp_path / "x.npz", npz(("__tinygrad_rnn__.npy", npy(trap))), "not a plain array")
    assert os.listdir(tmp_path) == ["x.npz"]


def test_members_are_not_unpacked(tmp_path: Path) -> None:
    """A member called ../../x is a key in the dict and touches no file."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.npz").write_bytes(npz(("../../x.npy", npy(np.arange(2))), ("/y.npy", npy(np.arange(2)))))
    assert list(tg.load(tmp_path / "a" / "b" / "x.npz")) == ["../../x", "/y"]
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b", "x.npz"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (claims("(1000000000000,)"), r"claims the shape \(1000000000000,\) of float64 but holds 8 bytes"),
        (claims(f"({2**31}, {2**31}, {2**31})"), "but holds 8 bytes"),
        (claims(f"({'9' * 5000},)"), r"x\.npz cannot be read"),
        (claims(f"(0, {2**70})", data=b""), r"x\.npz cannot be read"),
        (claims("(" + "1, " * 100 + ")"), r"x\.npz cannot be read"),
        (claims("(2,)"), r"claims the shape \(2,\) of float64 but holds 8 bytes"),
        (claims("()", data=bytes(9)), "but holds 9 bytes"),
        (claims("(-1,)"), "not a plain array"),
        (claims("(1.0,)"), "not a plain array"),
        (claims("(" * 5000), "not a plain array"),
        (claims("(1,)", descr="'|O'"), "not a plain array"),
        (claims("(1,)", descr="'|O8'"), "not a plain array"),  # NumPy would take the eight bytes for an address
        (claims("(1,)", descr="'|V8'"), "not a plain array"),
        (claims("(1,)", descr="'<m8'"), "not a plain array"),
        (claims("(1,)", descr="'<f3'"), "<f3"),
        (claims("(1,)", descr="[('a', '<f8')]"), "not a plain array"),
        (claims("(1,)", descr="'<U0'"), "not a plain array"),
        (claims("(1,)", descr="__import__('os').mkdir('x')"), "not a plain array"),
        (claims(r"(1,) if '\d' else 0"), "not a plain array"),
        (npz(("a.npy", b"")), "not a plain array"),
        (npz(("a.npy", npy(header="{}", version=b"\x03\x00"))), "not a plain array"),
        (npz(("a.npy", b"\x93NUMPY\x01\x00\xff\xff{")), "not a plain array"),
        (npz(("a.npy", npy(np.eye(2))), ("b.npy", npy(np.eye(2)))).replace(b"b.npy", b"a.npy"), r"'a\.npy' in it is .* there twice"),
        (npz(("a.npy", npy(np.eye(2))), packing=zipfile.ZIP_LZMA), "packed in an unusual way"),
        (npz(("a.npy", npy(np.eye(2))))[:-12] + b"\2" + npz(("a.npy", npy(np.eye(2))))[-11:], "it should list 2 arrays, but lists 1"),
        (npz(("a/", b"")), r"'a/' in it is no array"),
    ],
)  # fmt: skip
def test_hostile_npz(content: bytes, reason: str, tmp_path: Path) -> None:
    """Headers that lie, members that are there twice or are no arrays: refused without room being made for what they claim."""
    refused(tmp_path / "x.npz", content, reason)


def test_damage_in_an_npz_array_is_noticed(tmp_path: Path) -> None:
    """A flipped bit in the numbers themselves does not pass the zip's checksum."""
    content = npz(("a.npy", npy(np.full(4, 0.5))))
    place = content.index(struct.pack("<d", 0.5))
    refused(tmp_path / "x.npz", content[:place] + b"\x01" + content[place + 1 :], "Bad CRC-32")


def patched(content: bytes, *, packed: int | None = None, claimed: int | None = None) -> bytes:
    """A zip with one member whose sizes, in both of its headers, are replaced."""
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    changed = bytearray(content)
    for place, size in ((local + 18, packed), (central + 20, packed), (local + 22, claimed), (central + 24, claimed)):
        if size is not None:
            changed[place : place + 4] = struct.pack("<I", size)
    return bytes(changed)


def test_what_is_told_of_a_file_is_short(tmp_path: Path) -> None:
    """A name that claims to be as long as the file is not quoted whole."""
    changed = bytearray(npz(("a.npy", npy(np.zeros(1000)))))
    changed[26:28] = struct.pack("<H", 8000)
    refused(tmp_path / "x.npz", bytes(changed), r"File name in directory 'a\.npy' and header .* …\. It is cut off")


def test_zip_bombs(tmp_path: Path) -> None:
    """Memory is taken neither for what a member claims nor for what it unpacks to beyond that claim."""
    import tracemalloc

    large = b"\x93NUMPY" + bytes(50_000_000)
    bomb = npz(("a.npy", large), packing=zipfile.ZIP_DEFLATED)
    many = npz(*((f"{n}.npy", large) for n in range(8)), packing=zipfile.ZIP_DEFLATED)
    del large
    path = tmp_path / "x.npz"
    tracemalloc.start()
    try:
        refused(path, many, r"it claims 400000048 bytes, packed into \d+, in a file of \d+")
        refused(path, patched(bomb, claimed=2**32 - 2), "it claims 4294967294 bytes")
        refused(path, patched(bomb, claimed=1000))
        refused(path, patched(npz(("a.npy", npy(np.eye(2)))), packed=10**6), "packed into 1000000, in a file of")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def header(entries: Any, data: bytes = b"") -> bytes:
    """A .safetensors file with any header."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(*offsets: int, shape: tuple[int, ...] = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6)), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 400, shape=(100,))}, bytes(4)), r"x\.safetensors cannot be read"),
        (header({"a": entry(-4, 0)}, bytes(4)), r"x\.safetensors cannot be read"),
        (header({"a": entry(4, 0)}, bytes(4)), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 4, shape=(2**62, 2**62))}, bytes(4)), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 0, shape=(0, 2**62, 2**62))}), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 4, shape=(1,) * 100)}, bytes(4)), r"x\.safetensors cannot be read"),
        (header({"a": entry(0, 4, dtype="O")}, bytes(4)), r"x\.safetensors cannot be read"),
        (header(b"[" * 100_000), r"x\.safetensors cannot be read"),
        (header(b'{"a":' * 100_000), r"x\.safetensors cannot be read"),
        (
            header(b'{"a":' + json.dumps(entry(0, 4)).encode() + b',"a":' + json.dumps(entry(0, 4)).encode() + b"}", bytes(4)),
            "a name twice",
        ),
        (header({"__metadata__": {"a": 3}}), r"x\.safetensors cannot be read"),
        (header({"__metadata__": [1]}), r"x\.safetensors cannot be read"),
        (struct.pack("<Q", 2**63) + b"{}", r"x\.safetensors cannot be read"),
        (struct.pack("<Q", 10**9) + b"{}", r"x\.safetensors cannot be read"),
        (struct.pack("<Q", 10**7) + b"{}", r"x\.safetensors cannot be read"),
    ],
)
def test_hostile_safetensors(content: bytes, reason: str, tmp_path: Path) -> None:
    """Offsets that overlap, leave holes or point outside, shapes that overflow, names that come twice."""
    refused(tmp_path / "x.safetensors", content, reason)


def test_numbers_that_numpy_does_not_have(tmp_path: Path) -> None:
    """A file with PyTorch's bfloat16 is whole, and the remedy is another one."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(header({"a": entry(0, 4, shape=(2,), dtype="BF16")}, bytes(4)))
    with pytest.raises(StorageError) as caught:
        tg.load(path)
    assert str(caught.value) == f"load: {path} holds numbers of the kind 'BF16', which NumPy does not have; convert them to F32 first"


@both
@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("", r"cannot be read"),
        ("[" * 100_000, r"cannot be read"),
        ('{"version":1,"state":' + '["list",[' * 400 + "1" + "]]" * 400 + "}", r"cannot be read"),
        ("[]", r"cannot be read"),
        ("{}", "version"),
        ('{"version":2,"state":["dict",{}]}', "it is of version 2, this is tinygrad_rnn that knows version 1"),
        ('{"version":1,"state":3}', "its index holds a int instead of a dict"),
        ('{"version":1,"state":{"a":1}}', r"its index holds \{'a': 1\}, which tg\.save does not write"),
        ('{"version":1,"state":["dict",[]]}', "which tg.save does not write"),
        ('{"version":1,"state":["eval","print(1)"]}', "which tg.save does not write"),
        ('{"version":1,"state":["dict",{"a":["array","a"],"a":["array","a"]}]}', "it gives a name twice"),
        ('{"version":1,"state":["dict",{"a":["array","a"],"b":["array","a"]}]}', "names 'a', which it does not hold, or names it twice"),
        ('{"version":1,"state":["dict",{"a":["array","b"]}]}', "names 'b', which it does not hold"),
        ('{"version":1,"state":["dict",{"a":["array",["a"]]}]}', r"names \['a'\], which it does not hold"),
        ('{"version":1,"state":["dict",{"a":["float","x"]}]}', r"cannot be read"),
        ('{"version":1,"state":["dict",{"a":' + "9" * 5000 + "}]}", r"cannot be read"),
        ('{"version":1,"state":["dict",{}]}', r"its index does not name \['a'\]"),
        ('{"version":1,"state":["dict",{"a":["array","a"]}]', r"cannot be read"),
    ],
)
def test_hostile_index(suffix: str, index: str, reason: str, tmp_path: Path) -> None:
    """An index that is no JSON, too deep, of another version, or names arrays that are not there, gives the one error."""
    array = np.zeros(1, np.float32)
    if suffix == ".npz":
        content = npz(("a.npy", npy(array)), ("__tinygrad_rnn__.npy", npy(np.frombuffer(index.encode(), np.uint8))))
    else:
        content = safetensors.save({"a": array}, {"__tinygrad_rnn__": index})
    refused(tmp_path / f"x{suffix}", content, reason)


@both
def test_a_bad_file_leaves_the_module_as_it_was(suffix: str, tmp_path: Path) -> None:
    """Neither a damaged file nor one of another model changes a weight."""
    path, module = tmp_path / f"x{suffix}", nn.GRU(2, 3, rng=0)
    before = module.state_dict()
    tg.save(path, {name: value + 1.0 for name, value in before.items()})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 5])
    with pytest.raises(StorageError):
        module.load_state_dict(tg.load(path))
    tg.save(path, nn.LSTM(2, 3, rng=0).state_dict())
    with pytest.raises(tg.errors.StateError, match=r"Missing: bias_hn_l0\. Unfit: weight_ih_l0 has shape \(12, 2\), expected \(9, 2\)"):
        module.load_state_dict(tg.load(path))
    assert same(module.state_dict(), before)


def test_files_are_closed_and_nothing_is_loaded_early(tmp_path: Path) -> None:
    """In development mode no warning about open files appears, for good files or bad; libraries are imported on first use."""
    program = """
import sys, numpy as np
before = set(sys.modules)
import tinygrad_rnn as tg
print({"zipfile", "safetensors"} & (set(sys.modules) - before))
for suffix in (".npz", ".safetensors"):
    path = f"{sys.argv[1]}/x{suffix}"
    tg.save(path, {"a": np.arange(3.0)})
    tg.load(path)
    with open(path, "r+b") as file:
        file.truncate(200)
    try:
        tg.load(path)
    except tg.errors.StorageError:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-X", "dev", "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\nrefused\nrefused\n", "")
