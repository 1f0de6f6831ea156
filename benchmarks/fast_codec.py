# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Encoding and decoding of action chunks: this package's FAST codec against the published processor's way of working.

    python benchmarks/fast_codec.py --output outputs/benchmarks/fast_codec.json

The reference does what the published processor is described to do: scipy's DCT, a string joined from single characters
in Python and a call of the tokenizer for every row, and the same backwards. Both use one and the same vocabulary, run
in turn in one process and must give the same ids and actions. The tokenizers library is held to one thread.
"""

import os
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

# Read when the library is first used.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from scipy.fft import dct, idct
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness import median_seconds, save_results, table
from nora15_hf.actions import FastActionTokenizer

# Of the published FAST+ vocabulary.
SCALE, MIN_TOKEN, VOCABULARY = 10, -354, 2048
DECODE_TOLERANCE = 1e-12


class PublishedProcessor:
    """The published processor's way of working, row by row, on the vocabulary of a codec."""

    def __init__(self, codec: FastActionTokenizer):
        self.scale, self.min_token = codec.scale, codec.min_token
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=codec.tokenizer, clean_up_tokenization_spaces=False)

    def encode(self, chunks: np.ndarray) -> list[list[int]]:
        coefficients = np.around(dct(chunks, axis=1, norm="ortho") * self.scale)
        rows = []
        for row in coefficients:
            codes = np.maximum(row.flatten() - self.min_token, 0).astype(int)
            rows.append(self.tokenizer("".join(map(chr, codes)))["input_ids"])
        return rows

    def decode(self, rows: list[list[int]], time_horizon: int, action_dim: int) -> np.ndarray:
        chunks = []
        for row in rows:
            codes = np.array(list(map(ord, self.tokenizer.decode(row))))
            coefficients = (codes + self.min_token).reshape(-1, action_dim)
            if coefficients.shape != (time_horizon, action_dim):
                raise ValueError(f"{len(codes)} coefficients do not make a chunk of {time_horizon} x {action_dim}.")
            chunks.append(idct(coefficients / self.scale, axis=0, norm="ortho"))
        return np.stack(chunks)


def smooth_chunks(count: int, time_horizon: int, action_dim: int, seed: int) -> np.ndarray:
    """Random walks inside [-1, 1], float32 `(count, time_horizon, action_dim)`."""
    steps = np.random.default_rng(seed).normal(0, 0.3, (count, time_horizon, action_dim))
    return np.clip(steps.cumsum(1), -1, 1).astype(np.float32)


def byte_level_codec(chunks: np.ndarray) -> FastActionTokenizer:
    """A vocabulary built like FAST+: all 256 bytes and merges learned from chunks."""
    coefficients = np.rint(dct(chunks, axis=1, norm="ortho") * SCALE).astype(int) - MIN_TOKEN
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(("".join(map(chr, row.ravel())) for row in coefficients), trainer)
    return FastActionTokenizer(tokenizer, scale=SCALE, min_token=MIN_TOKEN)


def main(arguments: list[str] | None = None) -> dict:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--codec", help="folder or repo of a codec, as physical-intelligence/fast; default: one built like it"
    )
    parser.add_argument("--batch", type=int, default=256, help="chunks per call (default 256)")
    parser.add_argument("--time-horizon", type=int, default=5, help="actions per chunk (default 5)")
    parser.add_argument("--action-dim", type=int, default=7, help="dimensions of an action (default 7)")
    parser.add_argument("--repeats", type=int, default=31, help="timed rounds (default 31)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    options = parser.parse_args(arguments)

    shape = (options.time_horizon, options.action_dim)
    codec = (
        byte_level_codec(smooth_chunks(4000, *shape, seed=0))
        if options.codec is None
        else FastActionTokenizer.from_pretrained(options.codec)
    )
    published = PublishedProcessor(codec)
    chunks = smooth_chunks(options.batch, *shape, seed=1)
    ids = codec.encode(chunks)
    if ids != published.encode(chunks):
        raise RuntimeError("The two encoders give different ids: their times cannot be compared.")
    actions, valid = codec.decode(ids, *shape)
    difference = np.abs(actions - published.decode(ids, *shape)).max().item()
    if not valid.all() or not difference <= DECODE_TOLERANCE:
        raise RuntimeError(f"The two decoders differ by {difference}: their times cannot be compared.")

    seconds = median_seconds(
        {
            "published encode": lambda: published.encode(chunks),
            "ours encode": lambda: codec.encode(chunks),
            "published decode": lambda: published.decode(ids, *shape),
            "ours decode": lambda: codec.decode(ids, *shape),
        },
        options.repeats,
    )
    for side in ("published", "ours"):
        seconds[f"{side} encode + decode"] = seconds[f"{side} encode"] + seconds[f"{side} decode"]
    results = {
        work: {
            "published_us_per_chunk": seconds[f"published {work}"] / options.batch * 1e6,
            "ours_us_per_chunk": seconds[f"ours {work}"] / options.batch * 1e6,
            "speed_up": seconds[f"published {work}"] / seconds[f"ours {work}"],
        }
        for work in ("encode", "decode", "encode + decode")
    }
    rows = [
        [
            work,
            f"{result['published_us_per_chunk']:.1f}",
            f"{result['ours_us_per_chunk']:.1f}",
            f"{result['speed_up']:.2f}x",
        ]
        for work, result in results.items()
    ]
    print(table(["per chunk", "published, us", "ours, us", "speed-up"], rows))
    tokens = sum(map(len, ids)) / len(ids)
    print(
        f"\n{options.batch} chunks of {shape[0]} x {shape[1]}, {tokens:.1f} tokens each, vocabulary {len(codec)}; "
        f"same ids, actions within {difference:.1e}; one thread, medians of {options.repeats} rounds."
    )
    outcome = {
        "codec": options.codec or "byte-level, built like FAST+",
        "batch": options.batch,
        "shape": shape,
        "tokens_per_chunk": tokens,
        "decode_difference": difference,
        "repeats": options.repeats,
        "tokenizer_threads": 1,
        "results": results,
    }
    if options.output is not None:
        save_results(options.output, outcome)
    return outcome


if __name__ == "__main__":
    main()
