"""Hostile files: whatever the bytes, ``load`` gives back a state or raises a StorageError, runs nothing and takes no memory for claims."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st

import tinygrad_rnn as tg
from tinygrad_rnn import nn, optim
from tinygrad_rnn.errors import StorageError

SUFFIXES = [".npz", ".safetensors"]
LIMIT = 20_000_000
"""Bytes that reading a file of some kilobytes may take."""


def state_of_a_run() -> dict[str, Any]:
    """What people save: a model, an optimiser, and a few plain values."""
    layer = nn.LSTM(2, 3, rng=0)
    optimizer = optim.Adam(layer.parameters(), lr=0.01)
    layer(np.ones((2, 1, 2)))[0].sum().backward()
    optimizer.step()
    return {
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "note": "é",
        "loss": float("inf"),
        "sizes": (1, [2, None]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a saved run in both formats, and nothing else."""
    place = tmp_path_factory.mktemp("files")
    for suffix in SUFFIXES:
        tg.save(place / f"good{suffix}", state_of_a_run())
    return place


def read(folder: Path, suffix: str, content: bytes) -> Any:
    """What loading such a file gives: a state, or None if it is refused. Anything else is a failure."""
    path = folder / f"fuzzed{suffix}"
    path.write_bytes(content)
    before = sorted(os.listdir(folder)), sorted(os.listdir(".")), set(sys.modules)
    tracemalloc.start()
    try:
        state = tg.load(path)
    except StorageError as error:
        assert "fuzzed" in str(error) and len(str(error)) < 2000
        state = None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < LIMIT + 4 * len(content)
    assert (sorted(os.listdir(folder)), sorted(os.listdir("."))) == before[:2]
    return plain(state)


def plain(state: Any) -> Any:
    """The state, after a look at everything in it: numbers, text and arrays of these, and nothing that could act."""
    if isinstance(state, dict):
        assert all(type(key) is str for key in state)
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [plain(value) for value in state]
    if isinstance(state, (np.ndarray, np.generic)):
        assert state.dtype.kind in "biufcSU" and (state.size == 0 or np.asarray(state).tobytes() is not None)
        return state
    assert state is None or type(state) in (bool, int, float, str)
    return state


# -- changed bytes ------------------------------------------------------------------------------------------------------------------


@st.composite
def damages(draw: st.DrawFn) -> Any:
    """A function from bytes to bytes: bits flipped, pieces cut out, doubled, moved or overwritten."""
    changes = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "cut", "double", "zero", "ones", "truncate", "insert", "length"]),
                st.floats(0, 1, exclude_max=True),
                st.integers(0, 7),
                st.binary(min_size=1, max_size=8),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def damage(content: bytes) -> bytes:
        changed = bytearray(content)
        for what, where, bit, filling in changes:
            if not changed:
                break
            place = int(where * len(changed))
            if what == "flip":
                changed[place] ^= 1 << bit
            elif what == "cut":
                del changed[place : place + 1 << bit]
            elif what == "double":
                changed[place:place] = changed[place : place + (1 << bit)]
            elif what in ("zero", "ones"):
                changed[place : place + (1 << bit)] = (b"\0" if what == "zero" else b"\xff") * len(changed[place : place + (1 << bit)])
            elif what == "truncate":
                del changed[place:]
            elif what == "insert":
                changed[place:place] = filling
            else:
                changed[place : place + len(filling)] = filling
        return bytes(changed)

    return damage


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(damage=damages())
def test_damaged_files(folder: Path, suffix: str, damage: Any) -> None:
    """Bits flipped, pieces lost, doubled or overwritten: refused, or read as a state whose arrays are plain numbers."""
    read(folder, suffix, damage((folder / f"good{suffix}").read_bytes()))


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=st.binary(max_size=200), keep=st.integers(0, 64))
def test_any_bytes(folder: Path, suffix: str, content: bytes, keep: int) -> None:
    """Any bytes at all, also behind the beginning of a good file."""
    good = (folder / f"good{suffix}").read_bytes()
    assert read(folder, suffix, good[:keep] + content) is None or suffix == ".npz" or keep + len(content) > 8


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_refused(folder: Path, suffix: str) -> None:
    """A file that is cut off, at whichever byte, is never read as a smaller state."""
    good = (folder / f"good{suffix}").read_bytes()
    places = {*range(0, 64), *range(0, len(good), max(1, len(good) // 150)), *range(len(good) - 80, len(good))}
    for length in sorted(places):
        assert read(folder, suffix, good[:length]) is None, length


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_bit_of_an_index_or_header(folder: Path, suffix: str) -> None:
    """One flipped bit in what describes the arrays: refused, or another name or number; never a crash, never another size of memory."""
    good = (folder / f"good{suffix}").read_bytes()
    start = 0 if suffix == ".safetensors" else good.index(b"PK\x01\x02")
    for place in range(start, min(len(good), start + 600), 5):
        for bit in (0, 3, 5, 7):
            changed = bytearray(good)
            changed[place] ^= 1 << bit
            read(folder, suffix, bytes(changed))


# -- files that are made to deceive ---------------------------------------------------------------------------------------------------


def npy(descr: str, shape: str, data: bytes, *, order: str = "False", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode("latin1", "replace")
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text) & (0xFFFF if version[0] == 1 else 0xFFFFFFFF))
    return b"\x93NUMPY" + version + size + text + data


class Spy:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


NAMES = st.one_of(
    st.sampled_from(
        ["a.npy", "b.npy", "../../escape.npy", "/etc/escape.npy", "a/../../b.npy", "C:\\escape.npy", "a", "", ".npy", "\0.npy", "a.npy/"]
    ),
    st.text(max_size=8).map(lambda text: text + ".npy"),
)
DESCRIPTIONS = st.sampled_from(
    [
        "'<f8'",
        "'<f4'",
        "'|O'",
        "'|V8'",
        "'<U9'",
        "'<M8[s]'",
        "'<f8'*9",
        "[('a', '<f8')]",
        "open('x', 'w')",
        "'<i99999999999'",
        "'<c16'",
        "'>f8'",
        "''",
    ]
)
SHAPES = st.sampled_from(
    [
        *("()", "(1,)", "(2,)", "(-1,)", "(1e9,)", "(4611686018427387904, 4)", "(99999999999999999999,)"),
        *("(0, 99999999999999)", "(1,) * 9", "[1]", "1", "(1, " * 40),
    ]
)


@given(
    members=st.lists(st.tuples(NAMES, DESCRIPTIONS, SHAPES, st.binary(max_size=16), st.sampled_from(["True", "False", "0"])), max_size=3),
    index=st.none() | st.text(max_size=20),
    packing=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_deceiving_npz(folder: Path, members: list[Any], index: str | None, packing: int) -> None:
    """Zips whose members lie about their names, dtypes and shapes; nothing is written outside, or anywhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, descr, shape, data, order in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), npy(descr, shape, data, order=order))
        if index is not None:
            archive.writestr("__tinygrad_rnn__.npy", npy("'|u1'", f"({len(index.encode())},)", index.encode()))
    state = read(folder, ".npz", buffer.getvalue())
    if state is not None and index is None:
        assert len(state) == len(members)


@given(
    entries=st.dictionaries(
        st.one_of(st.sampled_from(["a", "b", "__metadata__", "../x"]), st.text(max_size=5)),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F64", "F32", "BF16", "F8_E4M3", "I64", "BOOL", "U8", "O", "", 3, None]),
                "shape": st.lists(st.sampled_from([0, 1, 2, 2**31, 2**62, 2**64, -1]), max_size=4),
                "data_offsets": st.lists(st.sampled_from([0, 4, 8, 16, 2**40, 2**63, -8]), max_size=3),
            }
        )
        | st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3), max_size=2),
        max_size=3,
    ),
    data=st.binary(max_size=32),
    claimed=st.none() | st.sampled_from([0, 1, 7, 8, 2**20, 2**40, 2**63, 2**64 - 1]),
)
def test_deceiving_safetensors(folder: Path, entries: dict[str, Any], data: bytes, claimed: int | None) -> None:
    """Headers with any dtypes, shapes, offsets and lengths."""
    text = json.dumps(entries).encode()
    read(folder, ".safetensors", struct.pack("<Q", len(text) if claimed is None else claimed) + text + data)


STATES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["array", "scalar", "float", "dict", "tuple"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(state=STATES, version=st.sampled_from([1, 1, 1, 2, None, "1", 1.0, [1]]))
@example(state=["dict", {"a": ["array", "a"]}], version=1)
@example(state=["dict", {"a": ["list", [["array", "a"], ["array", "a"]]]}], version=1)
def test_deceiving_indices(folder: Path, suffix: str, state: Any, version: Any) -> None:
    """Any JSON in the place of the index: each array is handed out once or the file is refused."""
    index = json.dumps({"version": version, "state": state})
    if suffix == ".safetensors":
        content = safetensors.numpy.save({"a": np.ones(2)}, {"__tinygrad_rnn__": index})
    else:
        buffer = io.BytesIO()
        np.savez(buffer, a=np.ones(2), __tinygrad_rnn__=np.frombuffer(index.encode(), np.uint8))
        content = buffer.getvalue()
    loaded = read(folder, suffix, content)
    assert loaded is None or '"a"' in index


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_not_run(folder: Path, suffix: str, protocol: int) -> None:
    """A pickle as the file, and one inside an array of objects, are refused and leave nothing behind."""
    trace = folder / "spied"
    content = pickle.dumps(Spy(str(trace)), protocol)
    assert read(folder, suffix, content) is None
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy("'|O'", "(1,)", content))
        archive.writestr("b.pkl", content)
    assert read(folder, suffix, buffer.getvalue()) is None
    assert not trace.exists()


BOMBS = """
import resource, sys
import numpy as np, tinygrad_rnn as tg, zipfile, io, struct, json, safetensors.numpy
path, limit = sys.argv[1], 150 * 2**20
def bomb(levels):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for n in range(levels):
            with archive.open(f"{n}.npy", "w", force_zip64=True) as member:
                for _ in range(70):
                    member.write(bytes(2**22))
    return buffer.getvalue()
claims = json.dumps({"a": {"dtype": "F64", "shape": [2**37], "data_offsets": [0, 2**40]}}).encode()
files = [
    ("x.npz", bomb(3)),
    ("x.npz", bomb(1)),
    ("x.safetensors", struct.pack("<Q", 2**40) + b"{}"),
    ("x.safetensors", struct.pack("<Q", len(claims)) + claims),
]
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + limit, size + limit))
for name, content in files:
    with open(f"{path}/{name}", "wb") as file:
        file.write(content)
    try:
        tg.load(f"{path}/{name}")
    except tg.errors.StorageError as error:
        assert "MemoryError" not in str(error), error
        print("refused")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how much memory a process has")
def test_bombs_under_a_limit_of_memory(tmp_path: Path) -> None:
    """In a process that may take only 150 MiB more, files that unpack to 280 MiB or claim a terabyte are refused by a StorageError."""
    done = subprocess.run([sys.executable, "-c", BOMBS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["refused"] * 4, "", 0)
