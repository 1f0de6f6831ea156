# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Messages of the policy protocols: msgpack that holds NumPy arrays, of which nothing is believed before it has been checked.

Three ways to write an array are in use. All are read, without pickle and without evaluating anything:

- openpi: `{b"__ndarray__": True, b"data", b"dtype", b"shape"}`, scalars `{b"__npgeneric__": True, b"data", b"dtype"}`;
- GR00T N1.5 to N1.7: `{"__ndarray_class__": True, "as_npy": a .npy file}`;
- GR00T since 2026, msgpack-numpy: `{b"nd": True, b"type", b"kind", b"shape", b"data"}`.
"""

import io
import math
import re
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Any

import msgpack
import numpy as np

from .serving_error import ServingError, shown

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of a message in either direction: sixteen observations with two pictures of 640 x 480."""
# A few bytes can announce many items, and a Python object takes more memory than what announces it.
MAX_MEMBERS = 4_096
MAX_ITEMS = 20_000
MAX_TEXT_BYTES = 2**20
MAX_KEY_BYTES = 256
MAX_DEPTH = 16
MAX_DIMENSIONS = 8

_PLAIN = frozenset((str, bytes, bool, int, float, type(None)))
_KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
# What a sender may call a type: as `dtype.str` spells it or, of this machine's byte order, by its name.
_DTYPES = {dtype.str: dtype for kind in _KINDS for order in "<>" for dtype in [np.dtype(order + kind)]}
_DTYPES |= {dtype.name: dtype for dtype in map(np.dtype, _KINDS)}
# The header of a .npy file as np.save writes it. NumPy's reader evaluates it as Python.
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|]\w{2})', 'fortran_order': (True|False), 'shape': \(((?:\d+, ?)*\d*,?)\), ?\} *\n"
)


class ArrayDialect(StrEnum):
    """How arrays are written into a message; see the module."""

    OPENPI = "openpi"
    NPY = "npy"
    MSGPACK_NUMPY = "msgpack_numpy"


def decode_message(message: bytes, on_dialect: Callable[[ArrayDialect], None] = lambda dialect: None) -> Any:
    """
    A message as plain values and arrays. Arrays are read-only views of the message.

    Args:
        message (`bytes`): At most [`MAX_MESSAGE_BYTES`].
        on_dialect (`Callable`, *optional*): Is told how an array was written, for every array.

    Raises:
        ServingError: Anything else than one well-formed message of numbers, texts, lists, maps and arrays; it names the place.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise ServingError(f"The message has {len(message)} bytes; at most {MAX_MESSAGE_BYTES} are accepted.")
    items = 0

    def count(container: Any) -> Any:
        nonlocal items
        items += 1 + len(container)
        if items > MAX_ITEMS:
            raise ServingError(f"The message has more than {MAX_ITEMS} items. Send images and states as arrays.")
        return container

    try:
        value = msgpack.unpackb(
            message,
            object_hook=count,
            list_hook=count,
            max_array_len=MAX_MEMBERS,
            max_map_len=MAX_MEMBERS,
            max_str_len=MAX_TEXT_BYTES,
            max_ext_len=0,
        )
    except ServingError:
        raise
    except ValueError as error:
        raise ServingError(f"The message is not valid msgpack: {str(error) or type(error).__name__}.") from error
    return _restore(value, "", 0, on_dialect)


def encode_message(value: Any, dialect: ArrayDialect = ArrayDialect.OPENPI) -> bytes:
    """
    The inverse of [`decode_message`].

    Raises:
        TypeError: A value that is neither plain nor an array of numbers.
    """
    return msgpack.packb(value, default=partial(_pack, dialect))


def _pack(dialect: ArrayDialect, value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray) or value.dtype.str not in _DTYPES:
        kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"A message cannot hold a value of the type {kind}.")
    if dialect is ArrayDialect.NPY:
        file = io.BytesIO()
        np.save(file, value)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    content = {b"data": value.tobytes(), b"shape": value.shape}
    if dialect is ArrayDialect.MSGPACK_NUMPY:
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", **content}
    return {b"__ndarray__": True, b"dtype": value.dtype.str, **content}


def _restore(value: Any, path: str, depth: int, on_dialect: Callable[[ArrayDialect], None]) -> Any:
    """A value in which every map that represents an array is replaced by the array."""
    if depth > MAX_DEPTH:
        raise ServingError(f"{path[:80]}... is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, list):
        return [
            member if type(member) in _PLAIN else _restore(member, f"{path}[{number}]", depth + 1, on_dialect)
            for number, member in enumerate(value)
        ]
    if not isinstance(value, dict):
        if type(value) in _PLAIN:
            return value
        raise ServingError(f"{path or 'The message'} is a {type(value).__name__}, which is not accepted.")
    members = {_text(key, path): member for key, member in value.items()}
    if "__ndarray__" in members:
        on_dialect(ArrayDialect.OPENPI)
        return _array(path, members.get("dtype"), members.get("shape"), members.get("data"))
    if "__npgeneric__" in members:
        return _number(path, members.get("data"))
    if "__ndarray_class__" in members:
        on_dialect(ArrayDialect.NPY)
        return _npy_array(path, members.get("as_npy"))
    # As bytes: `nd` may be the name of something else.
    if b"nd" in value:
        if not value[b"nd"]:
            return _array(path, members.get("type"), [], members.get("data")).item()
        on_dialect(ArrayDialect.MSGPACK_NUMPY)
        return _array(path, members.get("type"), members.get("shape"), members.get("data"))
    return {
        key: member
        if type(member) in _PLAIN
        else _restore(member, f"{path}/{key}" if path else key, depth + 1, on_dialect)
        for key, member in members.items()
    }


def _text(value: str | bytes, path: str) -> str:
    if len(value) > MAX_KEY_BYTES:
        raise ServingError(
            f"{path or 'The message'} has a key of {len(value)} characters; at most {MAX_KEY_BYTES} are accepted."
        )
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise ServingError(f"{path or 'The message'} has a key that is not UTF-8.") from None


def _number(path: str, value: Any) -> Any:
    if not isinstance(value, int | float):
        raise ServingError(f"{path} is a NumPy scalar whose data are a {type(value).__name__}, expected a number.")
    return value


def _npy_array(path: str, content: Any) -> np.ndarray:
    if not isinstance(content, bytes):
        raise ServingError(f"{path} has a {type(content).__name__} as as_npy, expected the bytes of a .npy file.")
    start = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}.get(content[:8])
    header = start and _NPY_HEADER.match(content, start)
    if not header or header.end() != start + int.from_bytes(content[8:start], "little"):
        raise ServingError(f"{path} is not a .npy file of plain numbers, as np.save writes it.")
    shape = [int(size) for size in header[3].split(b",") if size.strip()]
    data = memoryview(content)[header.end() :]
    return _array(path, header[1], shape, data, order="F" if header[2] == b"True" else "C")


def _array(path: str, dtype: Any, shape: Any, data: Any, order: str = "C") -> np.ndarray:
    """A view of `data` as an array, once the three agree."""
    name = _text(dtype, path) if isinstance(dtype, str | bytes) else None
    if name not in _DTYPES:
        raise ServingError(
            f"{path} is an array of dtype {shown(name or dtype)}, expected booleans, integers or floats of 1 to 8 bytes, for "
            "example '|u1' or '<f4'."
        )
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(type(size) is int and size >= 0 for size in shape)
        or math.prod(max(size, 1) for size in shape) > MAX_MESSAGE_BYTES
    ):
        raise ServingError(
            f"{path} is an array of shape {shape if isinstance(shape, list) and len(shape) < 20 else shown(shape)}, expected a list of at most {MAX_DIMENSIONS} sizes from 0 on."
        )
    if not isinstance(data, bytes | memoryview):
        raise ServingError(f"{path} is an array whose data are a {type(data).__name__}, expected bytes.")
    expected = math.prod(shape) * _DTYPES[name].itemsize
    if len(data) != expected:
        raise ServingError(
            f"{path} is an array of shape {shape} and dtype {name}, which takes {expected} bytes; it has {len(data)}."
        )
    return np.ndarray(shape, _DTYPES[name], data, order=order)


__all__ = ["MAX_MESSAGE_BYTES", "ArrayDialect", "decode_message", "encode_message"]
