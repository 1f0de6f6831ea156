# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Messages with arrays: what others write is read, and nothing that only claims to be an array is believed."""

import io
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nora15_hf.serving.message_codec import (
    MAX_MESSAGE_BYTES,
    ArrayDialect,
    decode_message,
    encode_message,
)
from nora15_hf.serving.serving_error import ServingError

DTYPES = ["|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", ">f4", ">i2"]


@pytest.mark.parametrize("dialect", ArrayDialect)
@given(array=st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0))))
@settings(max_examples=40, deadline=None)
@pytest.mark.slow
def test_arrays_come_back_in_every_dialect(dialect, array):
    found = []
    message = encode_message({"a": {"b": [array, "text", None, 1, 2.5, True]}}, dialect)
    (back, *rest) = decode_message(message, found.append)["a"]["b"]
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape, rest, found) == (array.dtype, array.shape, ["text", None, 1, 2.5, True], [dialect])
    assert not back.flags.writeable


def test_what_others_write():
    """Bytes as openpi's client and msgpack-numpy write them, put together by hand."""
    values = np.array([1.5, -2.0], dtype=np.float32)
    data = b"\xc4\x08" + values.tobytes()
    openpi = b"\x81\xa1a\x84\xc4\x0b__ndarray__\xc3\xc4\x04data" + data + b"\xc4\x05dtype\xa3<f4\xc4\x05shape\x91\x02"
    assert encode_message({"a": values})[:17] == openpi[:17]
    msgpack_numpy = (
        b"\x81\xa1a\x85\xc4\x02nd\xc3\xc4\x04type\xa3<f4\xc4\x04kind\xc4\x00\xc4\x05shape\x91\x02\xc4\x04data" + data
    )
    for message in (openpi, msgpack_numpy):
        np.testing.assert_array_equal(decode_message(message)["a"], values)
    scalar = msgpack.packb({b"nd": False, b"type": "<f4", b"data": values[:1].tobytes()})
    assert decode_message(scalar) == 1.5
    assert decode_message(msgpack.packb({b"__npgeneric__": True, b"data": 7, b"dtype": "<i8"})) == 7
    fortran = io.BytesIO()
    np.save(fortran, np.asfortranarray(np.arange(6).reshape(2, 3)))
    back = decode_message(msgpack.packb({"__ndarray_class__": True, "as_npy": fortran.getvalue()}))
    np.testing.assert_array_equal(back, np.arange(6).reshape(2, 3))


def openpi_array(**changed) -> bytes:
    array = {b"__ndarray__": True, b"data": bytes(4), b"dtype": "<f4", b"shape": [1]} | {
        key.encode(): value for key, value in changed.items()
    }
    return msgpack.packb({"images": {"top": array}})


def npy(content: bytes) -> bytes:
    return msgpack.packb({"images": {"top": {"__ndarray_class__": True, "as_npy": content}}})


def saved(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (openpi_array(dtype="|O"), "images/top is an array of dtype '|O', expected booleans, integers or floats"),
        (openpi_array(dtype="|V4"), "dtype '|V4'"),
        (openpi_array(dtype="<c8"), "dtype '<c8'"),
        (openpi_array(dtype="f4,f4"), "dtype 'f4,f4'"),
        (openpi_array(dtype="100000000f4"), "dtype '100000000f4'"),
        (openpi_array(dtype=[["a", "<f4"]]), "images/top is an array of dtype"),
        (openpi_array(dtype=None), "dtype a NoneType"),
        (openpi_array(shape=[-1]), "images/top is an array of shape [-1], expected a list"),
        (openpi_array(shape=[True]), "shape [True]"),
        (openpi_array(shape=[1.0]), "shape [1.0]"),
        (openpi_array(shape="1"), "shape '1'"),
        (openpi_array(shape=[1] * 9), "at most 8 sizes"),
        (openpi_array(shape=[2**40]), "shape [1099511627776]"),
        (openpi_array(shape=[0, 2**40], data=b""), "shape [0, 1099511627776]"),
        (openpi_array(shape=[2]), "images/top is an array of shape [2] and dtype <f4, which takes 8 bytes; it has 4"),
        (openpi_array(data=b""), "which takes 4 bytes; it has 0"),
        (openpi_array(data="text"), "whose data are a str, expected bytes"),
        (msgpack.packb({"a": {b"__npgeneric__": True, b"data": "x"}}), "a is a NumPy scalar whose data are a str"),
        (msgpack.packb({"a": {b"nd": True, b"type": "|O", b"data": b"\x80", b"shape": [1]}}), "a is an array of dtype '|O'"),
        (npy(saved(np.array([{}], dtype=object), allow_pickle=True)), "images/top is not a .npy file of plain numbers"),
        (npy(saved(np.zeros(2))[:-1]), "which takes 16 bytes; it has 15"),
        (npy(saved(np.zeros(1)).replace(b"(1,)", b"(9,)")), "which takes 72 bytes; it has 8"),
        (npy(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 500), "is not a .npy file"),
        (npy(b""), "is not a .npy file"),
        (msgpack.packb({"a": {"__ndarray_class__": True, "as_npy": "x"}}), "a has a str as as_npy"),
        (msgpack.packb({"a": {"x" * 300: 1}}), "a has a key of 300 characters; at most 256 are accepted"),
        (msgpack.packb({b"\xff": 1}), "has a key that is not UTF-8"),
        (msgpack.packb({"a": msgpack.ExtType(4, b"x")}), "is not valid msgpack"),
        (b"", "is not valid msgpack"),
        (b"\xc1", "is not valid msgpack: FormatError"),
        (b"\xc0\xc0", "is not valid msgpack"),
        (b"\x81\xc0\xc0", "is not valid msgpack"),
        (b"\x91" * 100_000 + b"\xc0", "is not valid msgpack: StackError"),
        (b"\x91" * 40 + b"\xc0", "is nested more than 16 deep"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\xc6\xff\xff\xff\xff", "is not valid msgpack"),
        (msgpack.packb(["x" * 2**21]), "exceeds max_str_len"),
        (msgpack.packb([[{}] * 4000] * 6), "more than 20000 items"),
        (bytes(MAX_MESSAGE_BYTES + 1), f"at most {MAX_MESSAGE_BYTES} are accepted"),
    ],
)  # fmt: skip
def test_what_is_refused(message, said):
    with pytest.raises(ServingError) as error:
        decode_message(message)
    assert said in str(error.value)


@pytest.mark.parametrize("announced", [b"\xdd\x00\x00\x10\x00", b"\xdf\x00\x00\x10\x00", b"\xdc\x0f\xff"])
def test_announcements_take_no_memory(announced):
    """Each level of a short message announces thousands of members."""
    message = announced * 500
    tracemalloc.start()
    with pytest.raises(ServingError):
        decode_message(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_MESSAGE_BYTES


def test_only_plain_values_are_written():
    assert decode_message(encode_message({"a": np.float32(1.5), "b": (1, 2)})) == {"a": 1.5, "b": [1, 2]}
    for value in (object(), np.array([object()]), np.array([1j])):
        with pytest.raises(TypeError, match="A message cannot hold a value of the type"):
            encode_message({"a": value})
