# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""`nora15 imagine`: what a world model imagines on episodes of a dataset, measured and shown."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from ..clips.clip_conventions import ClipConventions
from ..clips.episode_clips import EpisodeClips
from ..data.dataset_fingerprint import dataset_fingerprint
from ..data.lerobot_dataset import LeRobotDataset
from ..repo_files.fingerprint import artefact_name, digest, fingerprint
from ..repo_files.json_files import write_json
from ..runtime.device import usable_device
from ..runtime.prepared_ahead import default_num_workers
from ..runtime.shared_tensors import SharedTensors
from ..runtime.shared_work import ProcessPlace
from ..trainers.world_model.world_model_metrics import action_sensitivity
from ..vjepa2_ac import VJEPA2ACModel, VJEPA2ACProcessor
from .film_strip import film_strips
from .imagination import Imagination
from .page import write_page

RESULTS_FILE = "imagine.json"


def imagine(
    model: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    revision: str | None = None,
    dataset_revision: str | None = None,
    episodes: Sequence[int] | None = None,
    num_strips: int = 4,
    steps: int = 5,
    gallery_size: int = 2000,
    num_cases: int = 256,
    batch_size: int = 64,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
    place: ProcessPlace | None = None,
    dataloader_num_workers: int | None = None,
    **features,
) -> Imagination:
    """
    Lets a world model imagine episodes of a dataset and writes film strips, energy curves and a ranking table as PNG,
    one self-contained `index.html`, and `imagine.json`.

    Args:
        model (`str` or `Path`): Folder or repo of a world model with its `clips.json`.
        dataset (`str` or `Path`): Folder or repo of a LeRobot dataset with the model's camera and columns.
        output (`str` or `Path`): Folder to write to; files of an earlier call are replaced.
        revision, dataset_revision (`str`, *optional*): Branch, tag or commit of the repos.
        episodes (`Sequence[int]`, *optional*): Episode indices to look at. By default those that were held out from
            training, and all episodes of another dataset than the model's.
        num_strips (`int`, *optional*, defaults to 4): Episodes shown as film strips, spread over the instructions.
        steps (`int`, *optional*, defaults to 5): Frames to imagine, and actions per ranked chunk. More than the model's
            clips had is beyond what it was trained for.
        gallery_size (`int`, *optional*, defaults to 2000): Frames among which the nearest to an imagined one is searched.
        num_cases (`int`, *optional*, defaults to 256): Frames from which chunks are ranked.
        batch_size (`int`, *optional*, defaults to 64): Frames per encoder pass, cases per rollout.
        seed (`int`, *optional*, defaults to 0): Of the draws of frames, other chunks and noise.
        device (`str`, *optional*): A GPU where there is one by default.
        progress (`bool`, *optional*, defaults to `True`): Show progress bars.
        place ([`ProcessPlace`], *optional*): Which of several processes this is. They share the work through a hidden folder in `output`,
            and the first of them writes the results.
        dataloader_num_workers (`int`, *optional*): Processes that decode frames ahead; 4 beside a GPU by default, none on the CPU.
        features: `image_keys`, `action_key` and `state_key` of a dataset that calls them otherwise than the model's.

    Raises:
        ValueError: A model without `clips.json`, episodes that the dataset does not hold or that are too short.
    """
    if min(steps, num_strips, num_cases, gallery_size, batch_size) < 1:
        raise ValueError(
            f"`steps`={steps}, `num_strips`={num_strips}, `num_cases`={num_cases}, `gallery_size`={gallery_size} and "
            f"`batch_size`={batch_size} must each be at least 1."
        )
    device = usable_device(device)
    place = place or ProcessPlace()
    conventions = ClipConventions.from_pretrained(model, revision=revision).renamed(**features)
    world_model = VJEPA2ACModel.from_pretrained(model, revision=revision).to(device).eval()
    processor = VJEPA2ACProcessor.from_pretrained(model, revision=revision)

    def encode_frames(frames: torch.Tensor) -> torch.Tensor:
        batches = frames.to(device, non_blocking=True).split(batch_size)
        with torch.no_grad():
            return torch.cat([world_model.encode(processor(batch)["pixel_values"])[0].cpu() for batch in batches])

    whole = conventions.open_dataset(dataset, dataset_revision)
    conventions.check_dataset(whole)
    known = whole.episodes["index"].tolist()
    is_own = dataset_fingerprint(whole) == conventions.dataset_fingerprint
    unseen = conventions.held_out_episodes if is_own else tuple(known)
    chosen = _chosen_episodes(whole, episodes, unseen, steps)
    clips = EpisodeClips(whole, conventions, num_frames=2)

    output = Path(output)
    shared = SharedTensors()
    if place.count > 1:
        settings = {
            "model": fingerprint(world_model.state_dict()),
            "dataset": dataset_fingerprint(whole),
            "conventions": repr(conventions),
            "episodes": chosen,
            "numbers": [num_strips, steps, gallery_size, num_cases, batch_size, seed],
        }
        shared = SharedTensors(output / f".shared-{digest([json.dumps(settings).encode()])}", place)
    workers = default_num_workers(device) if dataloader_num_workers is None else dataloader_num_workers

    shown = _spread_over_instructions(chosen, whole, num_strips)
    strips = film_strips(
        world_model,
        clips,
        encode_frames,
        [known.index(episode) for episode in shown],
        [episode not in unseen for episode in shown],
        steps,
        gallery_size,
        batch_size,
        progress,
        shared,
        workers,
    )
    looked_at = EpisodeClips(
        conventions.open_dataset(dataset, dataset_revision, episodes=chosen), conventions, num_frames=2
    )
    sensitivity = action_sensitivity(
        world_model,
        looked_at.encoded_on_demand(encode_frames).latent_episodes(),
        action_std=clips.actions.std(0),
        horizon=steps,
        num_cases=num_cases,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
        shared=shared,
    )
    tasks = looked_at.dataset.episodes["tasks"]
    result = Imagination(
        model=artefact_name(str(model)),
        dataset=artefact_name(str(dataset)),
        steps=steps,
        fps=whole.fps,
        strips=strips,
        sensitivity=sensitivity,
        instructions=[tasks[episode][0] for episode, _ in sensitivity.starts],
        episodes=looked_at.dataset.episodes["index"].tolist(),
        trained_on=[episode for episode in chosen if episode not in unseen],
    )
    if place.is_main:
        write_json(output / RESULTS_FILE, result.to_dict())
        write_page(output, result)
    return result


def _spread_over_instructions(episodes: list[int], dataset: LeRobotDataset, count: int) -> list[int]:
    """The first episode of each instruction, then the second of each, and so on until there are `count`."""
    instructions = dict(zip(dataset.episodes["index"].tolist(), dataset.episodes["tasks"], strict=True))
    seen: Counter[str] = Counter()
    rounds = []
    for episode in episodes:
        instruction = instructions[episode][0]
        rounds.append((seen[instruction], episode))
        seen[instruction] += 1
    return sorted(episode for _, episode in sorted(rounds)[:count])


def _chosen_episodes(
    dataset: LeRobotDataset, episodes: Sequence[int] | None, unseen: Sequence[int], steps: int
) -> list[int]:
    lengths = dict(zip(dataset.episodes["index"].tolist(), dataset.episodes["length"].tolist(), strict=True))
    if episodes is None:
        chosen = [episode for episode in sorted(unseen) if lengths[episode] > steps]
        if not chosen:
            raise ValueError(
                f"None of the {len(unseen)} episodes that were held out from training has more than `steps`={steps} "
                "frames. Name `episodes`, or imagine fewer steps."
            )
        return chosen
    unknown = sorted(set(episodes) - set(lengths))
    short = sorted(episode for episode in set(episodes) - set(unknown) if lengths[episode] <= steps)
    if unknown or short or not episodes:
        raise ValueError(
            f"`episodes`={list(episodes)}: {unknown} are not among the {len(lengths)} episodes of the dataset, {short} have "
            f"no more than `steps`={steps} frames. Name others, or imagine fewer steps."
        )
    return sorted(set(episodes))


__all__ = ["RESULTS_FILE", "imagine"]
