"""Saving and loading: nested dicts of arrays and plain values, as ``.npz`` or ``.safetensors``, never as a pickle.

A file holds each array under a readable name (``model/lstm.weight_ih_l0``), so that NumPy and PyTorch read them too, and beside them
an index: JSON that says where each array belongs and holds all that is not an array. In it a plain value stands for itself and
everything else is a pair: ``["dict", {…}]``, ``["list", […]]``, ``["tuple", […]]``, ``["array", name]``, ``["scalar", name]``,
``["float", "nan"]``. A ``.safetensors`` file keeps the index in its metadata, an ``.npz`` file in one more array, of bytes.

Nothing that a file claims is believed before it is checked, and nothing in it is run or unpacked to disk.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ArgumentError, DtypeError, StorageError
from .files import write_atomically
from .tensor import Tensor

INDEX = "__tinygrad_rnn__"
"""The index's name in both formats."""

_VERSION = 1
_DEPTH = 64
_BITS = 4096
_ROOM, _RATIO = 2**28, 100
"""How much an .npz file may unpack to: this many bytes, and this many times its own size."""


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state to a file: a module's ``state_dict``, an optimiser's, or a dict that holds several.

    The file is written beside the old one and then takes its place, so that whoever reads sees the one or the other.

    Args:
        path: where to; the suffix decides the format, ``.npz`` or ``.safetensors`` (which needs the library of that name).
        state: a dict with strings as keys. Its values: arrays and Tensors, NumPy scalars, ints, floats, bools, strings, None, and
            lists, tuples and dicts of these.

    Raises:
        ArgumentError: for another suffix, a key that is no string, a value that cannot be stored, more than 64 levels.
        DtypeError: for an array of objects or strings, or one that ``.safetensors`` has no word for.
        StorageError: if the library safetensors is not installed.
        OSError: if the file cannot be written; the old one stays.

    Example:
        >>> import tempfile, numpy as np, tinygrad_rnn as tg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tg.save(f"{folder}/run.npz", {"model": tg.nn.Linear(2, 1, rng=0).state_dict(), "epoch": 3})
        ...     run = tg.load(f"{folder}/run.npz")
        >>> run["epoch"], run["model"]["weight"].shape
        (3, (1, 2))
    """
    import json

    target = _target("save", path)
    if not isinstance(state, Mapping):
        raise ArgumentError(f"save: expected a dict of names to values, got {type(state).__name__}. Did you mean .state_dict()?")
    arrays: dict[str, Any] = {}
    index = json.dumps({"version": _VERSION, "state": _encoded(state, (), arrays)}, separators=(",", ":"))
    write_atomically(target, _npz(index, arrays) if target.suffix.lower() == ".npz" else _safetensors(index, arrays))


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`save` wrote: the same nesting, the same types, the same bytes.

    Arrays are new, writable and in the machine's byte order; Tensors come back as arrays, other mappings as dicts. A file from
    elsewhere that holds nothing but arrays gives a flat dict of them.

    Raises:
        ArgumentError: for a suffix other than ``.npz`` and ``.safetensors``.
        StorageError: if the file is cut off, damaged, of another kind, or claims more than it holds; or if it is a
            ``.safetensors`` file and that library is not installed.
        OSError: if there is no such file or it may not be read.

    Example:
        >>> import tempfile, numpy as np, tinygrad_rnn as tg
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/foreign.npz", a=np.arange(3))
        ...     tg.load(f"{folder}/foreign.npz")
        {'a': array([0, 1, 2])}
    """
    target = _target("load", path)
    if target.exists() and not target.is_file():
        raise StorageError(f"load: {target} is a folder or a device; expected a file that tg.save wrote")
    content = target.read_bytes()
    try:
        index, arrays = _read_npz(content) if target.suffix.lower() == ".npz" else _read_safetensors(content)
        return arrays if index is None else _indexed(index, arrays)
    except StorageError:
        raise
    except DtypeError as error:
        raise StorageError(f"load: {target} holds {error}") from None
    except Exception as error:  # whatever a hostile file provokes in zipfile, json, safetensors or NumPy: it cannot be read
        reason = str(error) or type(error).__name__
        reason = reason if len(reason) <= 300 else f"{reason[:300]} …"  # zipfile may quote much of the file
        remedy = "It is cut off, damaged or of another kind: write it again with tg.save"
        raise StorageError(f"load: {target} cannot be read as {target.suffix}: {reason}. {remedy}") from None


def _target(operation: str, path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"{operation}: expected a path, got {type(path).__name__}")
    target = Path(path)
    if target.suffix.lower() not in (".npz", ".safetensors"):
        raise ArgumentError(f"{operation}: {target} ends in {target.suffix!r}; expected .npz or .safetensors")
    return target


# -- the index ------------------------------------------------------------------------------------------------------------------


def _encoded(value: Any, path: tuple[str, ...], arrays: dict[str, Any]) -> Any:
    """The value as JSON; the arrays in it are put into ``arrays`` and named there."""
    place = "/".join(path)
    if len(path) > _DEPTH:
        raise ArgumentError(f"save: {'/'.join(path[:3])}/… is more than {_DEPTH} levels deep. Does it hold itself?")
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return _text(value, place)
    if type(value) is int and value.bit_length() <= _BITS:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else ["float", repr(value)]
    if isinstance(value, Mapping):
        if strangers := [key for key in value if not isinstance(key, str)]:
            raise ArgumentError(f"save: the keys of {place or 'the state'} must be strings, got {strangers[0]!r}. Use str(key)")
        return ["dict", {_text(str(key), place or "the state"): _encoded(item, (*path, key), arrays) for key, item in value.items()}]
    if type(value) in (list, tuple):
        return [type(value).__name__, [_encoded(item, (*path, str(n)), arrays) for n, item in enumerate(value)]]
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        array = np.asarray(value.value if isinstance(value, Tensor) else value)
        if array.dtype.kind not in "biufc":
            raise DtypeError(f"save: {place} has dtype {array.dtype}; expected numbers or bools. Store text as str or a list of str")
        name = _name(place, arrays)
        arrays[name] = array.astype(np.dtype(array.dtype.newbyteorder("=").str), order="C", copy=False)
        return ["scalar" if isinstance(value, np.generic) else "array", name]
    what = f"an int of {value.bit_length()} bits" if type(value) is int else f"of type {type(value).__name__}"
    raise ArgumentError(f"save: {place} is {what}; expected arrays, numbers, bools, strings, None, and lists, tuples or dicts of them")


def _text(text: str, place: str) -> str:
    """The same text, if it is text: JSON would make one character of two halves."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"save: {text!r} in {place!r} has half a surrogate pair, which no file of text can hold") from None
    return text


def _name(place: str, taken: dict[str, Any]) -> str:
    """The name that an array has in the file: its path, or a number where that is taken or no name for a file."""
    plain = re.fullmatch(r"[\w.-]+(/[\w.-]+)*", place) and ".." not in place.split("/") and len(place) <= 200
    return place if plain and place not in (*taken, INDEX, "__metadata__") else f"array {len(taken)}"


def _indexed(index: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """The state that an index describes, with each array in its place."""
    import json

    document = json.loads(index, object_pairs_hook=_once)
    if document["version"] != _VERSION:
        raise ValueError(f"it is of version {document['version']!r}, this is tinygrad_rnn that knows version {_VERSION}")
    state = _decoded(document["state"], arrays)
    if not isinstance(state, dict):
        raise ValueError(f"its index holds a {type(state).__name__} instead of a dict")
    if arrays:
        raise ValueError(f"its index does not name {sorted(arrays)}")
    return state


def _decoded(node: Any, arrays: dict[str, Any]) -> Any:
    match node:
        case None | bool() | int() | float() | str():
            return node
        case ["float", str(text)]:
            return float(text)
        case ["dict", dict(items)]:
            return {key: _decoded(item, arrays) for key, item in items.items()}
        case ["list", list(items)]:
            return [_decoded(item, arrays) for item in items]
        case ["tuple", list(items)]:
            return tuple(_decoded(item, arrays) for item in items)
        case ["array" | "scalar" as kind, str(name)] if name in arrays:
            array = arrays.pop(name)  # so that none is there twice
            return array if kind == "array" else array[()]
        case ["array" | "scalar", name]:
            raise ValueError(f"its index names {name!r}, which it does not hold, or names it twice")
    raise ValueError(f"its index holds {repr(node)[:80]}, which tg.save does not write")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, unless a name in it comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it gives a name twice")
    return found


# -- .npz -----------------------------------------------------------------------------------------------------------------------


def _npz(index: str, arrays: dict[str, Any]) -> bytes:
    """A zip of .npy files, uncompressed and without dates: the same state gives the same bytes."""
    import io
    import zipfile

    buffer = io.BytesIO()
    archive = zipfile.ZipFile(buffer, "w")
    try:
        for name, array in (*arrays.items(), (INDEX, np.frombuffer(index.encode(), np.uint8))):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.save(member, array, allow_pickle=False)
        archive.close()
    except BaseException:
        archive.fp = None  # so that closing what is half written puts no error of its own in the place of this one
        raise
    return buffer.getvalue()


def _read_npz(content: bytes) -> tuple[str | None, dict[str, Any]]:
    import io
    import zipfile

    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        packed, claimed = sum(member.compress_size for member in members), sum(member.file_size for member in members)
        if packed > len(content) or claimed > _ROOM + _RATIO * len(content):
            raise ValueError(f"it claims {claimed} bytes, packed into {packed}, in a file of {len(content)}")
        listed = int.from_bytes(content[-12:-10], "little")  # zipfile does not compare
        if content[-22:-18] == b"PK\x05\x06" and listed not in (len(members), 0xFFFF):
            raise ValueError(f"it should list {listed} arrays, but lists {len(members)}")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in arrays or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member.filename!r} in it is no array, or there twice, or packed in an unusual way")
            with archive.open(member) as file:
                arrays[name] = _read_npy(file.read(member.file_size), member.filename)  # with a length, or a bomb unpacks whole
    index = arrays.pop(INDEX, None)
    return (None if index is None else index.tobytes().decode()), arrays


def _read_npy(content: bytes, name: str) -> Any:
    """One array of numbers, bools or strings; its header is matched letter by letter instead of being evaluated."""
    start = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}.get(content[:8], len(content))
    end = start + int.from_bytes(content[8:start], "little") if start < len(content) else start
    pattern = r"\{'descr': '([<>|=]?[biufcSU][1-9]\d*)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\),? ?\}\s*"
    header = re.fullmatch(pattern, content[start:end].decode("latin1"), re.ASCII)
    if header is None:
        raise ValueError(f"{name!r} in it is not a plain array of numbers")
    dtype, shape = np.dtype(header[1]), tuple(int(length) for length in re.findall(r"\d+", header[3]))
    if math.prod(shape) * dtype.itemsize != len(content) - end:
        raise ValueError(f"{name!r} in it claims the shape ({header[3]}) of {dtype} but holds {len(content) - end} bytes")
    array: np.ndarray[Any, np.dtype[Any]] = np.ndarray(shape, dtype, buffer=content, offset=end, order="F" if header[2] == "True" else "C")
    return array.astype(dtype.newbyteorder("="), order="C")


# -- .safetensors ---------------------------------------------------------------------------------------------------------------


def _library() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        remedy = 'pip install "tinygrad_rnn[safetensors]", or use .npz'
        raise StorageError(f".safetensors: the library that reads and writes these files is not installed: {remedy}") from None
    return safetensors.numpy


def _safetensors(index: str, arrays: dict[str, Any]) -> bytes:
    if large := [name for name, array in arrays.items() if array.dtype.itemsize > 8]:
        raise DtypeError(f"save: .safetensors has no word for the dtype {arrays[large[0]].dtype} of {large[0]}. Use .npz")
    content: bytes = _library().save(arrays, {INDEX: index})
    return content


def _read_safetensors(content: bytes) -> tuple[str | None, dict[str, Any]]:
    import json

    library = _library()
    try:
        arrays = library.load(content)
    except KeyError as error:
        raise DtypeError(f"numbers of the kind {error}, which NumPy does not have; convert them to F32 first") from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_once)
    index = header.get("__metadata__", {}).get(INDEX)
    return index, {name: array if array.flags.writeable else array.copy() for name, array in arrays.items()}
