"""Safe reader of pickles that contain only numpy arrays and Python's own containers.

A pickle is a program: each global it names may be a function that it then calls. This reader accepts only the few names
that data of numpy and Python need. It imports nothing, and replaces each of these names by a function of this module,
so that no other code runs. Any other name stops the reading before anything is called.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.imports.kinds import ADVICE, GZIP, PICKLE, file_kind, unpacked_limit
from mer_bench.errors import Misuse

DTYPE = re.compile(
    r"[<>=|]?(?:[biufc]\d{1,2}|[SU]\d*|[O?]8?)"
)  #: numbers, strings and objects, but no named fields and no times


class _Refused(pickle.UnpicklingError):
    """The pickle names a global that is not in the tables below."""


class _Dtype:
    """Replacement for a dtype during reading, because a real dtype would accept flags that a forged pickle sets."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        if not isinstance(name, str) or not DTYPE.fullmatch(name):
            raise pickle.UnpicklingError(
                f"an array has the type {name!r}; only numbers, strings and lists are supported"
            )
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the byte order and the width of strings; the flags follow from the type."""
        _, order, subarray, names, fields, width, *_ = state
        if subarray or names or fields:
            raise pickle.UnpicklingError("an array has named fields; only numbers, strings and lists are supported")
        if self.dtype.kind in "SU" and self.dtype.itemsize == 0:
            self.dtype = np.dtype(f"{self.dtype.kind}{width // (4 if self.dtype.kind == 'U' else 1)}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array that takes its type from a :class:`_Dtype`."""

    def __setstate__(self, state: Any, /) -> None:
        """Set ``(version, shape, dtype, is_fortran, data)``, where the data must fill the shape exactly."""
        version, shape, dtype, fortran, data = state
        data = data if dtype.dtype.hasobject else _bytes(data)
        if math.prod(shape) * (1 if dtype.dtype.hasobject else dtype.dtype.itemsize) != len(data):
            raise pickle.UnpicklingError(f"an array of shape {shape} has {len(data)} values or bytes")
        super().__setstate__((version, shape, dtype.dtype, fortran, data))


def _reconstruct(*_: Any) -> _Array:
    """An empty array, which ``__setstate__`` then fills."""
    return np.ndarray.__new__(_Array, (0,), "b")


def _bytes(data: Any) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else bytes(memoryview(data))  # Python 2 stored text


def _scalar(dtype: _Dtype, data: Any) -> Any:
    return np.frombuffer(_bytes(data), dtype.dtype, count=1)[0]  # raises an error for objects


def _frombuffer(buffer: Any, dtype: _Dtype, shape: Any, order: Any, axes: Any = None) -> Any:
    array = np.frombuffer(buffer, dtype.dtype)  # also raises an error for objects
    if order == "K":  # since numpy 2.3: stored in memory order, then transposed
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order=order)


def _encode(text: str, encoding: str = "") -> bytes:
    """Bytes in the form in which protocols 0 to 2 store them: text in Latin-1."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r} instead of latin-1")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


NUMPY_1, NUMPY_2 = "numpy.core", "numpy._core"
CALLED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(module, "bytes"): _empty_bytes for module in ("builtins", "__builtin__")},
    **{
        (f"{core}.{module}", name): function
        for core in (NUMPY_1, NUMPY_2)
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}
TYPES: dict[tuple[str, str], Any] = {  # immutable built-in types: a pickle cannot add attributes to them
    ("numpy", "ndarray"): None,  # an argument of _reconstruct, which does not use it
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    **{
        (module, type_.__name__): type_
        for module in ("builtins", "__builtin__")  # the second is Python 2's
        for type_ in (dict, list, tuple, set, frozenset, int, float, complex, bool, str)
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a global; a new function each time, so that no pickle can modify it for later ones."""
        if (module, name) in TYPES:
            return TYPES[module, name]
        if (module, name) not in CALLED:
            raise _Refused(f"{module}.{name}")
        function = CALLED[module, name]
        return lambda *arguments: function(*arguments)


#: begin of a refused name: how to go on with such a file
CONVERT = {
    "torch": "load it with torch.load(FILE, weights_only=True), call numpy() on the tensors and pickle the result",
    "joblib": "load it with joblib.load and store the result with pickle.dump",
    "pandas": "load it with pandas.read_pickle and store the values as numpy arrays (to_numpy)",
    "scipy": "convert its matrices to numpy arrays (toarray)",
    "": "convert it to those where it comes from",
}


def unpacked(path: Path) -> bytes | None:
    """The content of a pickle that is compressed with gzip, or written in text mode with CRLF; None for other files.

    Raises:
        Misuse: it unpacks to more than any data do.
    """
    with path.open("rb") as file:
        head = file.read(2)
    if head == b"\x1f\x8b":
        limit = unpacked_limit(path.stat().st_size)
        with gzip.open(path) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise Misuse(f"{path} unpacks to more than {limit:,} bytes, which no features do; unpack it with gunzip")
        return content
    if head[:1] != b"\x80":  # protocol 0 consists of lines and has no null bytes
        content = path.read_bytes()
        if b"\0" not in content and 0 < content.count(b"\n") == content.count(b"\r\n"):
            return content.replace(b"\r\n", b"\n")
    return None


def read_pickle(path: Path) -> Any:
    """Read a pickle of numpy arrays, numbers, text and Python's containers, written by Python 2 or 3.

    It may be compressed with gzip. A pickle in protocol 0 may have the line ends of Windows.

    Raises:
        Misuse: the file is not a pickle, or names anything else. Nothing that it names is run or imported.
    """
    kind = PICKLE
    try:
        kind = file_kind(path)
        content = unpacked(path)
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            return _Reader(file, encoding="latin1").load()
    except Misuse:
        raise
    except _Refused as error:
        name = next(begin for begin in CONVERT if str(error).startswith(begin))
        raise Misuse(
            f"{path} is refused: its pickle calls for {error}, but only numpy arrays and Python's own containers are "
            f"supported; nothing of it was run; {CONVERT[name]}"
        ) from None
    except MemoryError:
        raise Misuse(f"{path} does not fit into this machine's memory, or is damaged") from None
    except Exception as error:  # a damaged pickle can raise any error: in a stack, a shape, a name, a codec
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if kind not in (PICKLE, GZIP):
            reason = f"it is {kind}: {ADVICE[kind]}"
        raise Misuse(f"{path} is not a readable pickle: {reason}") from error
