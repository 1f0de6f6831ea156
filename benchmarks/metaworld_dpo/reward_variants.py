# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Scores the candidates that the study rolled out in the simulator with other world models and in other ways.

    python benchmarks/metaworld_dpo/reward_variants.py --seeds 0 1 2

Needs the base of the `dpo-success` arm (`run.py --arms dpo-success`). World models of other training lengths, widths and numbers of
demonstrations are trained first, once; `report.py` makes tables of how often each variant prefers the candidate that succeeds.
"""

import json
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import nn
from tqdm.auto import tqdm

from base import (
    DEMONSTRATIONS,
    POLICY,
    WORLD_MODEL,
    base_folder,
    candidates_folder,
    open_states,
    recorded_demonstrations,
)
from nora15_hf.clips.clip_conventions import ClipConventions
from nora15_hf.control.chunk_prediction import predict_chunks
from nora15_hf.control.chunk_samplers import FlowSampler
from nora15_hf.data import LeRobotDataset
from nora15_hf.nora15 import Nora15ForActionPrediction, Nora15Processor
from nora15_hf.preferences import load_preferences
from nora15_hf.preferences.labelling import demonstrated_chunks
from nora15_hf.preferences.rewards import combined_scores
from nora15_hf.quickstart.config import STATE_FOLDER
from nora15_hf.quickstart.policy_stages import CHUNK_SIZE, demonstrated_states
from nora15_hf.quickstart.world_model_stage import train_world_model
from nora15_hf.repo_files.fingerprint import digest
from nora15_hf.repo_files.settings import as_json
from nora15_hf.runtime.cpu_threads import choose_threads
from nora15_hf.stages.post_training import load_policy
from nora15_hf.vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from raw_results import REWARD_PREFIX, RawResults
from study import FINAL, VARIANTS, Base, Study

GOAL_CHUNKS = (1, 2, 4)
"""After how many chunks the frame comes that a sub-goal is."""
IMAGINED_STEPS = (1, 3)
"""After how many of a chunk's actions the goal is compared as well."""
POLICY_CHUNKS = 2
"""How many chunks the policy adds to a candidate in imagination."""
BATCH = 16
DECODER_FRAMES = 512
"""Of the demonstrations, to which the decoder of latents is fitted."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """
    Of a world model: `demonstrations` per task, steps of the encoder with the predictor and of the predictor alone, and `width` of
    both (see [`tiny_world_model`]).
    """

    demonstrations: int = Base.demonstrations
    encoder_steps: int = Base.encoder_steps
    predictor_steps: int = Base.predictor_steps
    width: int = 128


TRAININGS = {
    "steps0.3": Training(encoder_steps=100, predictor_steps=170),
    "steps1": Training(),
    "steps3": Training(encoder_steps=900, predictor_steps=1500),
    "data0.2": Training(demonstrations=5),
    "data3-steps3": Training(demonstrations=75, encoder_steps=900, predictor_steps=1500),
    "width0.5": Training(width=64),
    "width2": Training(width=256),
}
"""World models by name; `steps1` is the study's own."""


def world_model_folder(study: Study, seed: int, name: str, output: Path) -> Path:
    """That of a training, which is trained unless it is there."""
    training, folder = TRAININGS[name], base_folder(output, study, seed)
    if training == Training():
        return folder / WORLD_MODEL
    # A name whose training is changed is another world model.
    trained_by = study.base.settings | asdict(training)
    work = folder / "world-models" / digest([json.dumps(trained_by, sort_keys=True).encode()])
    if not (work / WORLD_MODEL).exists():
        base = replace(
            study.base,
            demonstrations=training.demonstrations,
            encoder_steps=training.encoder_steps,
            predictor_steps=training.predictor_steps,
        )
        demonstrations = recorded_demonstrations(base, folder.parent)
        (work / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
        for link, target in ((DEMONSTRATIONS, demonstrations), (POLICY, folder / POLICY)):
            if not (work / link).exists():
                (work / link).symlink_to(target.resolve())
        train_world_model(work, base.pipeline(seed), width=training.width)
    return work / WORLD_MODEL


class ImaginedOutcomes:
    """
    What a world model imagines after the candidates of a set of states, and the ways to score it.

    Args:
        folder (`Path`): The world model.
        dataset ([`LeRobotDataset`]): Where the states come from.
        positions (`Sequence[int]`): Of S states in it.
        candidates (`torch.Tensor`): Of them, float32 `(S, N, H, A)`.
        demonstrated (`torch.Tensor`): The demonstrated chunks, float32 `(S, H, A)`.
        policy ([`Nora15ForActionPrediction`]), processor ([`Nora15Processor`]): The policy that goes on after a candidate.
    """

    def __init__(
        self,
        folder: Path,
        dataset: LeRobotDataset,
        positions: Sequence[int],
        candidates: torch.Tensor,
        demonstrated: torch.Tensor,
        policy: Nora15ForActionPrediction,
        processor: Nora15Processor,
    ):
        self.model = VJEPA2ACModel.from_pretrained(folder).eval()
        self.world_model_processor = VJEPA2ACProcessor.from_pretrained(folder)
        self.camera = ClipConventions.from_pretrained(folder).image_key
        self.dataset, self.positions = dataset, positions
        self.policy, self.policy_processor = policy, processor
        chunks = torch.cat([candidates, demonstrated[:, None]], 1)
        with torch.no_grad():
            imagined = [
                self.model.rollout(self.encode(positions[rows])[:, None], chunks[rows])
                for rows in _batches(len(positions))
            ]
        # After each action: of each candidate (S, N, H, P, D), of the demonstration (S, 1, H, P, D).
        self.imagined, self.after_demonstration = torch.cat(imagined).split([candidates.shape[1], 1], dim=1)

    @torch.no_grad()
    def encode(self, positions: Sequence[int]) -> torch.Tensor:
        """Latents of frames of the dataset, `(len(positions), P, D)`."""
        latents = []
        for rows in _batches(len(positions)):
            frames = [self.dataset.frame(position, self.camera) for position in positions[rows]]
            clips = torch.from_numpy(np.stack(frames))[:, None]
            latents.append(self.model.encode(self.world_model_processor(clips)["pixel_values"])[:, 0])
        return torch.cat(latents)

    def scores(self) -> dict[str, np.ndarray]:
        """Way of scoring to the scores `(S, N)`, higher is better."""
        ends = self.encode([self.dataset.last_frame_index(position) for position in self.positions])
        found = {"end": self._distance(ends), "end_pooled": self._pooled_distance(ends)}
        for steps in IMAGINED_STEPS:
            found[f"end_after{steps}"] = self._distance(ends, steps)
        for chunks in GOAL_CHUNKS:
            later = [self.dataset.subgoal_index(position, chunks * CHUNK_SIZE) for position in self.positions]
            found[f"subgoal{chunks}"] = self._distance(self.encode(later))
        found["imagined_demonstration"] = self._distance(self.after_demonstration[:, 0, -1])
        found["end_with_policy"] = -(self._after_policy() - ends[:, None]).abs().mean((2, 3)).numpy()
        return found | {"progress": self._progress()}

    def _distance(self, goals: torch.Tensor, steps: int = CHUNK_SIZE) -> np.ndarray:
        """As [`WorldModelGoalReward`]: mean absolute difference over patches and dimensions, after so many actions."""
        return -(self.imagined[:, :, steps - 1] - goals[:, None]).abs().mean((2, 3)).numpy()

    def _pooled_distance(self, goals: torch.Tensor) -> np.ndarray:
        """Of latents that are averaged over the picture first."""
        return -(self.imagined[:, :, -1].mean(2) - goals.mean(1)[:, None]).abs().mean(2).numpy()

    @torch.no_grad()
    def _after_policy(self) -> torch.Tensor:
        """
        What is imagined after the chunks that the policy adds, `(S, N, P, D)`. It sees pictures decoded from the imagined
        latents, and acts without noise.
        """
        decode = self._decoder()
        latents = self.imagined[:, :, -1].clone()
        for rows in _batches(len(self.positions)):
            samples = [self.dataset[position] for position in self.positions[rows] for _ in range(latents.shape[1])]
            current = latents[rows].flatten(0, 1)
            for _ in range(POLICY_CHUNKS):
                chunks = predict_chunks(
                    self.policy,
                    self.policy_processor,
                    decode(current),
                    [sample["instruction"] for sample in samples],
                    [(0, sample["index"]) for sample in samples],
                    dataset_key=[sample["dataset_key"] for sample in samples],
                    sampler=FlowSampler(temperature=0.0),
                    unnormalize=False,
                )
                current = self.model.rollout(current[:, None], torch.from_numpy(chunks), last_only=True)[:, -1]
            latents[rows] = current.view_as(latents[rows])
        return latents

    def _decoder(self) -> Callable[[torch.Tensor], list[np.ndarray]]:
        """A linear map from the latents of a patch to its pixels, fitted to demonstrated frames; it makes uint8 images."""
        count = len(self.dataset)
        positions = np.linspace(0, count - 1, min(count, DECODER_FRAMES)).astype(int).tolist()
        frames = torch.from_numpy(np.stack([self.dataset.frame(position, self.camera) for position in positions]))
        pixels = frames.movedim(-1, 1).float()
        patch = self.model.config.encoder_config.patch_size
        # (B, 3 * patch * patch, P): a column of pixels per patch, in the order of the encoder's tokens.
        patches = nn.functional.unfold(pixels, patch, stride=patch).mT.flatten(0, 1)
        weights = torch.linalg.lstsq(_with_ones(self.encode(positions).flatten(0, 1)), patches).solution

        def decode(latents: torch.Tensor) -> list[np.ndarray]:
            columns = (_with_ones(latents) @ weights).mT
            images = nn.functional.fold(columns, pixels.shape[-2:], patch, stride=patch)
            return list(images.clamp(0, 255).round().byte().movedim(1, -1).numpy())

        return decode

    def _progress(self) -> np.ndarray:
        """
        How far the task has come in what is imagined: ridge regression of a frame's share of its episode on its latents, for each task on
        the other episodes than those of its half of the states.
        """
        episodes = self.dataset.episodes
        starts, stops = episodes["from"].tolist(), episodes["to"].tolist()
        episode_of = np.searchsorted(starts, self.positions, side="right") - 1
        tasks = [self.dataset[start]["instruction"] for start in starts]
        progress = np.zeros(self.imagined.shape[:2], dtype=np.float32)
        for task in dict.fromkeys(tasks):
            own = [episode for episode, name in enumerate(tasks) if name == task]
            for half in (0, 1):
                rows = np.flatnonzero(np.isin(episode_of, own[half::2]))
                if not len(rows):
                    continue
                spans = [range(starts[episode], stops[episode]) for episode in own[1 - half :: 2]]
                frames = [frame for span in spans for frame in span]
                share = torch.cat([torch.linspace(0, 1, len(span)) for span in spans])
                predict = _ridge(self.encode(frames).flatten(1), share)
                progress[rows] = predict(self.imagined[rows, :, -1].flatten(2)).numpy()
        return progress


def _with_ones(features: torch.Tensor) -> torch.Tensor:
    """With a last feature that is constant."""
    return torch.cat([features, torch.ones_like(features[..., :1])], -1)


def _ridge(features: torch.Tensor, targets: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A linear function of centred features; the penalty is a tenth of their mean squared length."""
    centre, mean = features.mean(0), targets.mean()
    centred = features - centre
    gram = centred @ centred.T
    weights = torch.linalg.solve(gram + 0.1 * gram.diagonal().mean() * torch.eye(len(gram)), targets - mean)
    direction = centred.T @ weights
    return lambda points: (points - centre) @ direction + mean


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH):
        yield slice(start, start + BATCH)


def _require_same_candidates(measured: pd.DataFrame, distances: np.ndarray) -> None:
    """
    `distances` to the demonstration are those of the candidates in the study's folder, `(S, N)`.

    Raises:
        ValueError: What was measured in the simulator belongs to other candidates than those that were scored.
    """
    known = measured[f"{REWARD_PREFIX}ground_truth"].to_numpy()
    found = distances[measured["state"], measured["candidate"]]
    if not np.allclose(known, found, rtol=1e-4, atol=1e-6):
        raise ValueError(
            "The raw results of the rolled-out candidates are not those of the candidates in the study's folder: their distances to "
            "the demonstration differ. Give --results the folder that run.py wrote into together with --output."
        )


def score_variants(study: Study, seed: int, output: Path, results: RawResults) -> None:
    """Scores the rolled-out candidates of a training seed by every variant, and writes them as raw results."""
    folder = base_folder(output, study, seed)
    rows: Dataset = load_preferences(candidates_folder(folder, "rollouts")).remove_columns(["images"])
    dataset = open_states(folder, "rollouts")
    positions = demonstrated_states(dataset, rows)
    candidates = torch.tensor(rows["candidates"])
    policy, processor = load_policy(folder / POLICY)
    demonstrated = demonstrated_chunks(dataset, processor, [dataset[position] for position in positions])
    scores: dict[str, np.ndarray] = {"ground_truth": np.array([each["ground_truth"] for each in rows["rewards"]])}
    measured = results.read_candidates(study.name).query("training_seed == @seed")
    _require_same_candidates(measured, scores["ground_truth"])
    for name in tqdm(TRAININGS, desc=f"World models of seed {seed}"):
        world_model = world_model_folder(study, seed, name, output)
        of_model = ImaginedOutcomes(
            world_model, dataset, positions, candidates, demonstrated, policy, processor
        ).scores()
        scores |= {f"{name}/{way}": values for way, values in of_model.items()}
    for way in ("end", "end_with_policy", "subgoal1", "progress"):
        members = {name: torch.from_numpy(scores[f"{name}/{way}"]) for name in TRAININGS}
        same_say = dict.fromkeys(TRAININGS, 1 / len(TRAININGS))
        scores[f"ensemble/{way}"] = combined_scores(members, same_say, standardize=True).numpy()
    table: list[dict[str, Any]] = []
    for row in measured.to_dict("records"):
        place = row["state"], row["candidate"]
        kept = {key: value for key, value in row.items() if not key.startswith(REWARD_PREFIX)}
        del kept["study"], kept["training_seed"]
        table.append(kept | {f"{REWARD_PREFIX}{name}": float(values[place]) for name, values in scores.items()})
    trainings = {name: asdict(training) for name, training in TRAININGS.items()}
    results.write_candidates(VARIANTS, seed, table, settings=as_json(study.settings() | {"trainings": trainings}))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="training seeds (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default 1)")
    parser.add_argument(
        "--output", type=Path, default=Path("outputs/metaworld-dpo"), help="folder of the study (default %(default)s)"
    )
    parser.add_argument("--results", type=Path, help="of the raw results; default: results in the output folder")
    options = parser.parse_args(arguments)
    choose_threads(options.threads)
    results = RawResults(options.results or options.output / "results")
    for seed in options.seeds:
        score_variants(FINAL, seed, options.output, results)


if __name__ == "__main__":
    main()
