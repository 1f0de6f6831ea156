# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST action codec: DCT over time, rounding, and BPE over the coefficients (Pertsch et al., arXiv 2501.09747)."""

import json
import math
import os
from collections.abc import Sequence
from itertools import chain
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.utils import cached_file

from ..repo_files.verified_download import verified

CONFIG_NAME = "processor_config.json"
TOKENIZER_FOLDER = "bpe_tokenizer"

# The first code point of the private-use area: no Unicode rule (letters, digits, spaces) tells its characters apart.
_FIRST_PRIVATE_CHARACTER, _LAST_PRIVATE_CHARACTER = 0xE000, 0xF8FF
# `fit` leaves room for coefficients this far beyond the ones it has seen.
_MARGIN = 8


class FastActionTokenizer:
    """Turns chunks of normalised actions into short lists of token ids and back.

    A chunk `(H, A)` is transformed by an orthonormal DCT-II over time, multiplied by `scale`, rounded (half to even)
    and flattened, all dimensions of the lowest frequency first. Each coefficient `q` is the character with code point
    `q - min_token`, and BPE shortens the text. Ids, decoded actions and files are those of the published
    `physical-intelligence/fast` processor; unlike it, this class loses nothing in silence: what it cannot represent is
    refused by `encode`, and what does not decode to a chunk is flagged by `decode`.

    Args:
        tokenizer (`tokenizers.Tokenizer`):
            BPE either over bytes (`ByteLevel`, the published vocabularies) or over the characters (made by `fit`).
        scale (`float`): coefficients per unit; the rounding error of an action is at most `0.5 / scale * sqrt(H)`.
        min_token (`int`): the coefficient that code point 0 stands for.
        time_horizon (`int`, *optional*), action_dim (`int`, *optional*):
            Shape of every chunk; `None` (as in the published FAST+) leaves it to the arguments of `decode`.

    Attributes:
        coefficient_range (`tuple[int, int]`): the smallest and the largest coefficient accepted in both directions.

    Raises:
        `ValueError`: a tokenizer that is not BPE of one of the two kinds, a scale or a shape that is not positive.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        scale: float,
        min_token: int,
        time_horizon: int | None = None,
        action_dim: int | None = None,
    ):
        _check_scale(scale)
        if not isinstance(min_token, int):
            raise ValueError(f"`min_token` is {min_token!r}; expected an integer.")
        for name, value in (("time_horizon", time_horizon), ("action_dim", action_dim)):
            if value is not None and not (isinstance(value, int) and value > 0):
                raise ValueError(f"`{name}` is {value!r}; expected a positive integer or None.")
        self.tokenizer = tokenizer
        self.scale = scale
        self.min_token = min_token
        self.time_horizon = time_horizon
        self.action_dim = action_dim

        self._is_byte_level = _is_byte_level(tokenizer)
        vocabulary = tokenizer.get_vocab(with_added_tokens=False)
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise ValueError(f"`tokenizer` has {len(vocabulary)} tokens whose ids are not 0 to {len(vocabulary) - 1}.")
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        byte_of_character = {character: byte for byte, character in bytes_to_unicode().items()}
        self._token_bytes = [
            bytes(byte_of_character[character] for character in token)
            # The published `fit` also puts raw characters into its vocabularies; they stand for themselves.
            if self._is_byte_level and all(character in byte_of_character for character in token)
            else token.encode("utf-8")
            for token in tokens
        ]
        self._first_code, self._encodable = self._find_encodable_codes(vocabulary)
        if not self._encodable.any():
            raise ValueError("`tokenizer` has no token for any single coefficient; its vocabulary is damaged.")
        self._last_code = self._first_code + len(self._encodable) - 1
        self.coefficient_range = (self._first_code + min_token, self._last_code + min_token)

    def _find_encodable_codes(self, vocabulary: dict[str, int]) -> tuple[int, np.ndarray]:
        """The first code point in use, and for each one from there to the last whether the vocabulary can spell it."""
        if not self._is_byte_level:
            known = {ord(token) for token in vocabulary if len(token) == 1}
            first, last = min(known, default=0), max(known, default=0)
            return first, np.array([code in known for code in range(first, last + 1)])
        # Files of byte vocabularies do not tell the largest coefficient. Every one that a token spells completely was
        # seen in training, and actions have either sign, so that -min_token is as plausible as min_token.
        complete = (token.decode("utf-8", errors="ignore") for token in self._token_bytes)
        last = max([-2 * self.min_token, *(ord(character) for text in complete for character in text)])
        if last >= 0xD800:
            raise ValueError(f"`min_token` is {self.min_token}; its code points extend into Unicode's surrogates.")
        byte_characters = bytes_to_unicode()
        spelled = (all(byte_characters[byte] in vocabulary for byte in chr(code).encode()) for code in range(last + 1))
        return 0, np.fromiter(spelled, dtype=bool)

    def __len__(self) -> int:
        return len(self._token_bytes)

    @property
    def vocab_size(self) -> int:
        """Number of ids in use, 0 to `vocab_size - 1`."""
        return len(self)

    def __repr__(self) -> str:
        return (
            f"FastActionTokenizer(vocab_size={self.vocab_size}, scale={self.scale}, min_token={self.min_token}, "
            f"coefficient_range={self.coefficient_range}, time_horizon={self.time_horizon}, "
            f"action_dim={self.action_dim})"
        )

    # Files

    @classmethod
    @verified
    def from_pretrained(
        cls,
        folder_or_repo: str | os.PathLike,
        *,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
    ) -> "FastActionTokenizer":
        """Reads a codec from a local folder or a Hub repo, without running code from it.

        Both layouts are understood: `tokenizer.json` next to `processor_config.json` (written under transformers 4)
        and in the sub-folder `bpe_tokenizer` (transformers 5 and `save_pretrained`).

        Args:
            folder_or_repo (`str` or `os.PathLike`): local folder or repo id, as `"physical-intelligence/fast"`.
            subfolder (`str`, *optional*): folder inside it that holds the codec.
            revision, token, cache_dir, local_files_only: as in every `from_pretrained` of transformers.

        Raises:
            `OSError`: a file is missing (from transformers, with the repo's and the file's name), or arrived damaged
                twice.
            `ValueError`: a file is damaged, or its values are refused by the constructor.
        """
        download = {
            "subfolder": subfolder,
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
        }
        config_file = cached_file(folder_or_repo, CONFIG_NAME, **download)
        tokenizer_file = cached_file(
            folder_or_repo,
            f"{TOKENIZER_FOLDER}/tokenizer.json",
            _raise_exceptions_for_missing_entries=False,
            **download,
        )
        if tokenizer_file is None:
            tokenizer_file = cached_file(folder_or_repo, "tokenizer.json", **download)

        try:
            with open(config_file, encoding="utf-8") as file:
                config = json.load(file)
            settings = {name: config[name] for name in ("scale", "min_token")}
            shape = {name: config.get(name) for name in ("time_horizon", "action_dim")}
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{config_file} is not the configuration of a FAST codec ({error!r}); expected JSON with `scale` and "
                "`min_token`."
            ) from error
        try:
            tokenizer = Tokenizer.from_file(tokenizer_file)
        except Exception as error:  # the Rust side raises plain `Exception`
            raise ValueError(f"{tokenizer_file} is not a tokenizer of the `tokenizers` library: {error}.") from error
        return cls(tokenizer, **settings, **shape)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes `processor_config.json` and `bpe_tokenizer/`, for `from_pretrained` and the published processor.

        Args:
            folder (`str` or `os.PathLike`): made if missing.
        """
        tokenizer_folder = os.path.join(folder, TOKENIZER_FOLDER)
        os.makedirs(tokenizer_folder, exist_ok=True)
        self.tokenizer.save(os.path.join(tokenizer_folder, "tokenizer.json"))
        config = {
            "action_dim": self.action_dim,
            "min_token": self.min_token,
            "processor_class": "UniversalActionProcessor",
            "scale": self.scale,
            "time_horizon": self.time_horizon,
            "vocab_size": self.vocab_size,
        }
        # Cleaning up spaces would change coefficients whose characters happen to be a space before a full stop.
        tokenizer_config = {"clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}
        for path, content in (
            (os.path.join(folder, CONFIG_NAME), config),
            (os.path.join(tokenizer_folder, "tokenizer_config.json"), tokenizer_config),
        ):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.write("\n")

    @classmethod
    def fit(
        cls, chunks: np.ndarray | torch.Tensor, scale: float = 10, vocab_size: int = 1024
    ) -> "FastActionTokenizer":
        """Makes a codec for chunks of one shape. The same chunks always give the same codec.

        Every coefficient gets a private-use character of its own: all that occur in `chunks` or can occur for actions
        in [-1, 1], and a margin of 8 on both sides, so that chunks outside the training data can be encoded, too.

        Args:
            chunks (`np.ndarray` or `torch.Tensor` of shape `(N, H, A)`): floating point, normalised to about [-1, 1].
            scale (`float`, *optional*, defaults to 10): see [`FastActionTokenizer`].
            vocab_size (`int`, *optional*, defaults to 1024):
                Upper limit of the number of ids; there are fewer when the data have no more pairs to merge.

        Raises:
            `ValueError`: wrong shape, no chunks, NaN or infinity, or a `vocab_size` below the number of coefficients.
        """
        chunks = _as_float64(chunks)
        if chunks.ndim != 3 or 0 in chunks.shape:
            raise ValueError(f"`chunks` has shape {chunks.shape}; expected (N, H, A) with at least one chunk.")
        _check_scale(scale)
        _, time_horizon, action_dim = chunks.shape
        coefficients = np.rint(_dct_matrix(time_horizon) @ chunks * scale)
        bound = math.ceil(scale * math.sqrt(time_horizon))  # of one coefficient of actions in [-1, 1]
        low = min(int(coefficients.min()), -bound) - _MARGIN
        high = max(int(coefficients.max()), bound) + _MARGIN
        num_coefficients = high - low + 1
        if num_coefficients > _LAST_PRIVATE_CHARACTER - _FIRST_PRIVATE_CHARACTER + 1:
            raise ValueError(
                f"the coefficients range from {low} to {high}, more than there are characters; normalise `chunks` to "
                "about [-1, 1], clip the outliers or lower `scale`."
            )
        if num_coefficients > vocab_size:
            raise ValueError(
                f"`vocab_size` is {vocab_size}, but the coefficients from {low} to {high} alone need "
                f"{num_coefficients} ids; raise `vocab_size`, lower `scale`, or clip outliers in `chunks`."
            )
        min_token = low - _FIRST_PRIVATE_CHARACTER
        tokenizer = Tokenizer(models.BPE())
        tokenizer.decoder = decoders.Fuse()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=[chr(_FIRST_PRIVATE_CHARACTER + i) for i in range(num_coefficients)],
        )
        tokenizer.train_from_iterator(_as_texts(coefficients - min_token), trainer=trainer)
        return cls(tokenizer, scale=scale, min_token=min_token, time_horizon=time_horizon, action_dim=action_dim)

    # Coding

    def encode(self, actions: np.ndarray | torch.Tensor) -> list[list[int]]:
        """Turns chunks into ids.

        Args:
            actions (`np.ndarray` or `torch.Tensor` of shape `(B, H, A)` or `(H, A)`):
                Any floating dtype; normalised to about [-1, 1]. The ids depend on the values only, not on the dtype.

        Returns:
            `list[list[int]]`: one list per chunk (one list for a single chunk), of varying length.

        Raises:
            `TypeError`: not floating point.
            `ValueError`: wrong shape, NaN or infinity, or a coefficient that the vocabulary cannot spell.
        """
        actions = _as_float64(actions)
        if actions.ndim not in (2, 3) or 0 in actions.shape[-2:]:
            raise ValueError(f"`actions` has shape {actions.shape}; expected (B, H, A) or (H, A).")
        for name, expected, found in zip(
            ("time_horizon", "action_dim"), (self.time_horizon, self.action_dim), actions.shape[-2:], strict=True
        ):
            if expected is not None and expected != found:
                raise ValueError(
                    f"`actions` has shape {actions.shape}, but this codec is made for chunks with {name} {expected}, "
                    f"not {found}; use another codec or fit one with `FastActionTokenizer.fit`."
                )
        if len(actions) == 0:
            return []
        if actions.ndim == 2:
            actions = actions[None]
        codes, fits = self._codes(actions)
        if not fits.all():
            chunk, frequency, dimension = np.argwhere(~fits)[0]
            raise ValueError(
                f"`actions`: chunk {chunk} has the coefficient "
                f"{codes[chunk, frequency, dimension] + self.min_token:.0f} at frequency {frequency} of "
                f"dimension {dimension}, which this vocabulary cannot encode (it contains "
                f"{int(self._encodable.sum())} coefficients between {self.coefficient_range[0]} and "
                f"{self.coefficient_range[1]}). Normalise the actions to about [-1, 1], clip outliers, or fit a codec "
                "on data like this with `FastActionTokenizer.fit`."
            )
        encodings = self.tokenizer.encode_batch_fast(_as_texts(codes), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def spells(self, actions: np.ndarray | torch.Tensor) -> np.ndarray:
        """Whether [`~FastActionTokenizer.encode`] can spell each dimension of chunks `(B, H, A)`: bool `(B, A)`."""
        return self._codes(_as_float64(actions))[1].all(axis=1)

    def _codes(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Code points `(B, H, A)` of chunks, as floats, and whether the vocabulary contains them."""
        codes = np.rint(_dct_matrix(actions.shape[1]) @ actions * self.scale) - self.min_token
        fits = (codes >= self._first_code) & (codes <= self._last_code)
        inside = np.clip(codes, self._first_code, self._last_code).astype(np.int64) - self._first_code
        return codes, fits & self._encodable[inside]

    def decode(
        self,
        ids: Sequence[Sequence[int]] | np.ndarray | torch.Tensor,
        time_horizon: int | None = None,
        action_dim: int | None = None,
        on_invalid: Literal["mask", "raise", "relaxed"] = "mask",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes ids into chunks, and reports which of them are valid.

        A row is valid if every id is in the vocabulary, its bytes are UTF-8, and it gives exactly `H * A` coefficients
        inside `coefficient_range`. The end marker of a language model is not part of a row: cut it off first.

        Args:
            ids (`Sequence[Sequence[int]]`, `np.ndarray` or `torch.Tensor`): B rows of ids, of any lengths.
            time_horizon (`int`, *optional*), action_dim (`int`, *optional*): the chunk's shape if not the codec's own.
            on_invalid (`str`, *optional*, defaults to `"mask"`):
                `"mask"` fills an invalid row with NaN. `"raise"` raises. `"relaxed"` repairs what it can for callers
                that prefer a guess: unknown ids are dropped, surplus coefficients cut off, missing ones taken as 0; a
                repaired row holds numbers but stays flagged as invalid, and a row that gives no coefficient, bytes
                that are not UTF-8 or coefficients out of range is NaN.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: actions, float64 of shape `(B, H, A)`, and valid, bool of shape `(B,)`.

        Raises:
            `TypeError`: `ids` is not made of rows of integers.
            `ValueError`: the chunk's shape is unknown, or an invalid row with `on_invalid="raise"`.
        """
        if on_invalid not in ("mask", "raise", "relaxed"):
            raise ValueError(f"`on_invalid` is {on_invalid!r}; expected 'mask', 'raise' or 'relaxed'.")
        time_horizon = self.time_horizon if time_horizon is None else time_horizon
        action_dim = self.action_dim if action_dim is None else action_dim
        if not time_horizon or not action_dim or time_horizon < 0 or action_dim < 0:
            raise ValueError(
                f"the chunk's shape is unknown: `time_horizon` is {time_horizon}, `action_dim` is {action_dim}, and "
                f"this codec was saved with {self.time_horizon} and {self.action_dim}. Pass both as positive integers."
            )
        rows, has_unknown_ids = self._check_rows(ids)
        size = time_horizon * action_dim
        texts, problems = [], []
        for row, is_unknown in zip(rows, has_unknown_ids.tolist(), strict=True):
            text, problem = self._spell(row, is_unknown, size)
            texts.append(text[:size])
            problems.append(problem)

        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        is_given = np.arange(size) < lengths[:, None]
        codes = np.full((len(rows), size), -self.min_token, dtype=np.int64)  # coefficient 0 where "relaxed" fills up
        codes[is_given] = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
        is_beyond = (is_given & ((codes < self._first_code) | (codes > self._last_code))).any(axis=1)
        for i in np.flatnonzero(is_beyond):
            problems[i] = f"it has coefficients outside {self.coefficient_range}"

        valid = np.array([not problem for problem in problems], dtype=bool)
        if on_invalid == "raise" and not valid.all():
            first = int(np.argmin(valid))
            raise ValueError(
                f"`ids`: row {first} is not a chunk of {time_horizon} x {action_dim} actions: {problems[first]}."
            )
        usable = (lengths > 0) & ~is_beyond if on_invalid == "relaxed" else valid
        coefficients = (codes + self.min_token).reshape(-1, time_horizon, action_dim) / self.scale
        actions = _dct_matrix(time_horizon).T @ coefficients
        actions[~usable] = np.nan
        return actions, valid

    def _check_rows(
        self, ids: Sequence[Sequence[int]] | np.ndarray | torch.Tensor
    ) -> tuple[list[list[int]], np.ndarray]:
        """The rows as lists, and for each whether it holds ids that are not in the vocabulary."""
        if isinstance(ids, (np.ndarray, torch.Tensor)):
            rows = ids.tolist()
        else:
            rows = [row.tolist() if isinstance(row, (np.ndarray, torch.Tensor)) else row for row in ids]
        if not all(isinstance(row, (list, tuple)) for row in rows):
            raise TypeError(
                "`ids` does not consist of rows; expected B lists of integers. Wrap a single list: `[ids]`."
            )
        flat = np.array(list(chain.from_iterable(rows)))
        if flat.size and flat.dtype.kind not in "iu":
            raise TypeError(f"`ids` holds values of type {flat.dtype}; expected integers.")
        row_of_id = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        has_unknown_ids = np.zeros(len(rows), dtype=bool)
        has_unknown_ids[row_of_id[(flat < 0) | (flat >= len(self))]] = True
        return rows, has_unknown_ids

    def _spell(self, row: Sequence[int], has_unknown_ids: bool, size: int) -> tuple[str, str]:
        """The text of a row (empty if there is none), and what is wrong with it (empty if nothing)."""
        problem = ""
        if has_unknown_ids:
            problem = (
                f"{[i for i in row if not 0 <= i < len(self)]} are not ids of this vocabulary (0 to {len(self) - 1})"
            )
            row = [i for i in row if 0 <= i < len(self)]
        table = self._token_bytes
        try:
            text = b"".join([table[i] for i in row]).decode("utf-8")
        except UnicodeDecodeError as error:
            return "", f"its bytes are not UTF-8 ({error.reason} at byte {error.start})"
        if len(text) != size and not problem:
            problem = f"it has {len(text)} coefficients, expected {size}"
        return text, problem


def _check_scale(scale: float) -> None:
    if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise ValueError(f"`scale` is {scale!r}; expected a positive number, coefficients per unit.")


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether BPE runs over bytes (True) or characters (False); other tokenizers are refused."""
    description = json.loads(tokenizer.to_str())
    model, steps = description["model"]["type"], description["pre_tokenizer"]
    kind = None if steps is None else steps["type"]
    if model != "BPE" or kind not in (None, "ByteLevel") or description["normalizer"] is not None:
        raise ValueError(
            f"`tokenizer` is a {model} model with pre-tokenizer {kind} and normalizer {description['normalizer']}; "
            "a FAST codec is BPE with the ByteLevel pre-tokenizer or none, and no normalizer."
        )
    return kind == "ByteLevel"


def _dct_matrix(length: int) -> np.ndarray:
    """Orthonormal DCT-II as a float64 matrix of shape (length, length); its transpose is the inverse."""
    frequency, time = np.mgrid[:length, :length]
    matrix = np.cos(np.pi * (2 * time + 1) * frequency / (2 * length)) * math.sqrt(2 / length)
    matrix[0] = math.sqrt(1 / length)
    return matrix


def _as_float64(actions: np.ndarray | torch.Tensor) -> np.ndarray:
    """Float64 copy of floating-point actions on the CPU; NaN and infinity are refused."""
    if isinstance(actions, torch.Tensor):
        if not actions.is_floating_point():
            raise TypeError(f"the actions have dtype {actions.dtype}; expected floating point.")
        values = actions.detach().to("cpu", torch.float64).numpy()
    else:
        values = np.asarray(actions)
        if values.dtype.kind != "f":
            raise TypeError(f"the actions have dtype {values.dtype}; expected floating point.")
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        index = tuple(np.argwhere(~np.isfinite(values))[0].tolist())
        raise ValueError(f"the actions hold NaN or infinity, the first at index {index}; fix or drop the chunk.")
    return values


def _as_texts(codes: np.ndarray) -> list[str]:
    """One string per chunk; `codes` (B, H, A) are code points, read frequency by frequency."""
    rows = codes.astype("<u4").reshape(len(codes), -1)
    return [row.tobytes().decode("utf-32-le") for row in rows]


__all__ = ["FastActionTokenizer"]
