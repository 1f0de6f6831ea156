# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a card says about an artefact: plain frozen dataclasses, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .card_settings import Setting

__all__ = [
    "NOT_STATED",
    "AdapterCardInfo",
    "DemonstrationCardInfo",
    "Evaluation",
    "PolicyCardInfo",
    "PreferenceCardInfo",
    "Stage",
    "WorldModelCardInfo",
]

NOT_STATED = "not stated"
"""For what nobody told: a gap that is seen."""

Stage = Literal["sft", "continued-sft", "dpo", "not stated"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """
    Closed-loop success of a policy.

    Args:
        environment (`str`): simulator or robot as people call it, with its version.
        environment_id (`str`): short identifier of it, the `dataset.type` of the model index.
        results (`Mapping[str, tuple[int, int]]`): task to (successes, episodes).
        conventions (`Mapping[str, Setting]`): everything that moves the numbers: renderer, image size, executed steps
            per chunk, step limit, success rule, seeds, versions.
    """

    environment: str
    environment_id: str
    results: Mapping[str, tuple[int, int]]
    conventions: Mapping[str, Setting]

    def __post_init__(self):
        if not self.results:
            raise ValueError("`results` is empty: pass at least one task, or no `Evaluation` at all.")
        for task, (successes, episodes) in self.results.items():
            if not 0 <= successes <= episodes or episodes == 0:
                raise ValueError(
                    f"`results[{task!r}]` is ({successes}, {episodes}); expected (successes, episodes) with "
                    "0 <= successes <= episodes and at least one episode."
                )


@dataclass(frozen=True, kw_only=True)
class PolicyCardInfo:
    """
    What the card of a policy says.

    Args:
        repo_id (`str`): what a reader passes to `from_pretrained`.
        name (`str`): title of the card and model name of the results.
        stage (`str`): `"sft"`, `"continued-sft"`, `"dpo"` or `"not stated"`.
        num_parameters (`int`): number of parameters.
        image_size (`int`): side of the square model image in pixels.
        chunk_size (`int`), action_dim (`int`): shape of a chunk.
        n_action_steps (`int`): actions executed before the next query.
        action_space (`str`): meaning and unit of each action dimension.
        gripper (`str`): meaning of the gripper's sign.
        normalization (`str`): which statistics map which dimensions to which range.
        state_dim (`int`, *optional*): width of the robot state that the policy reads; `None` when it reads none.
        statistics_keys (`tuple[str, ...]`): dataset keys with statistics in the checkpoint.
        decoder (`str`): how actions are sampled, with the number of steps.
        example_instruction (`str`): an instruction of the training data, used in the usage snippet.
        base_model (`str`, *optional*): repo that training started from.
        started_from (`str`): what to say without a `base_model`.
        datasets (`tuple[str, ...]`): repos trained on.
        rewards (`Mapping[str, float]`): weight of each reward behind the preferences; empty without preferences.
        training (`Mapping[str, Setting]`): hyper-parameters.
        evaluation (`Evaluation`, *optional*): closed-loop results.
        limits (`tuple[str, ...]`): sentences added to the general limits.
        license (`str`): Hub licence identifier.
    """

    repo_id: str
    name: str
    stage: Stage
    num_parameters: int
    image_size: int
    chunk_size: int
    action_dim: int
    n_action_steps: int
    action_space: str
    gripper: str
    normalization: str
    statistics_keys: tuple[str, ...]
    decoder: str
    example_instruction: str
    training: Mapping[str, Setting]
    state_dim: int | None = None
    base_model: str | None = None
    started_from: str = "random weights"
    datasets: tuple[str, ...] = ()
    rewards: Mapping[str, float] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    limits: tuple[str, ...] = ()
    license: str = "apache-2.0"

    def __post_init__(self):
        if self.stage not in get_args(Stage):
            raise ValueError(f"`stage` is {self.stage!r}; expected one of {', '.join(get_args(Stage))}.")
        if not self.statistics_keys:
            raise ValueError("`statistics_keys` is empty: pass the dataset keys of the processor's action statistics.")
        _check_repo_ids(base_model=self.base_model)
        _check_repo_ids(**{f"datasets[{index}]": dataset for index, dataset in enumerate(self.datasets)})


@dataclass(frozen=True, kw_only=True)
class AdapterCardInfo:
    """
    What the card of a LoRA adapter says.

    Args:
        repo_id (`str`), name (`str`): as in [`PolicyCardInfo`].
        base_model (`str`): repo of the policy that the adapter belongs to.
        num_parameters (`int`): numbers stored in the repo.
        rank (`int`), alpha (`float`): of the low-rank matrices.
        target_modules (`str` or `tuple[str, ...]`): layers that are adapted: a pattern, or names.
        modules_to_save (`tuple[str, ...]`): modules that were trained as a whole.
        training, datasets, evaluation, limits, license: as in [`PolicyCardInfo`].
    """

    repo_id: str
    name: str
    base_model: str
    num_parameters: int
    rank: int
    alpha: float
    target_modules: str | tuple[str, ...]
    modules_to_save: tuple[str, ...]
    training: Mapping[str, Setting]
    datasets: tuple[str, ...] = ()
    evaluation: Evaluation | None = None
    limits: tuple[str, ...] = ()
    license: str = "apache-2.0"

    def __post_init__(self):
        _check_repo_ids(base_model=self.base_model)
        _check_repo_ids(**{f"datasets[{index}]": dataset for index, dataset in enumerate(self.datasets)})


@dataclass(frozen=True, kw_only=True)
class WorldModelCardInfo:
    """
    What the card of a world model says.

    Args:
        repo_id (`str`), name (`str`), num_parameters (`int`): as in [`PolicyCardInfo`].
        image_size (`int`): side of the square model image in pixels.
        action_dim (`int`): width of an action.
        horizon (`int`): number of steps it is rolled out for.
        encoder (`str`): where the encoder's weights come from and whether they were trained.
        frame_step (`str`): time between two frames, for example `"one control step, 1/80 s"`.
        action_space (`str`): meaning of each action dimension.
        action_scale (`str`): how actions are normalised.
        state_input (`str`): what is passed as robot state.
        training (`Mapping[str, Setting]`): hyper-parameters.
        metrics (`Mapping[str, Setting]`): held-out losses, action sensitivity, collapse metric.
        base_model, datasets, limits, license: as in [`PolicyCardInfo`].
    """

    repo_id: str
    name: str
    num_parameters: int
    image_size: int
    action_dim: int
    horizon: int
    encoder: str
    frame_step: str
    action_space: str
    action_scale: str
    state_input: str
    training: Mapping[str, Setting]
    metrics: Mapping[str, Setting]
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    license: str = "apache-2.0"

    def __post_init__(self):
        _check_repo_ids(base_model=self.base_model)
        _check_repo_ids(**{f"datasets[{index}]": dataset for index, dataset in enumerate(self.datasets)})


@dataclass(frozen=True, kw_only=True)
class PreferenceCardInfo:
    """
    What the card of a preference dataset says.

    Args:
        repo_id (`str`), name (`str`): what a reader passes to `load_dataset`, and the title.
        num_rows (`int`), num_candidates (`int`), chunk_size (`int`), action_dim (`int`): shapes.
        demonstrations (`str`), policy (`str`), world_model (`str`): repos the observations, candidates and imagined
            futures come from; `None` where there is none, or where it is not known.
        rewards (`Mapping[str, float]`): weight of each reward in the combination.
        selection (`str`): how chosen and rejected were picked, for example `"best against worst of the candidates"`.
        min_margin (`float`): pairs below this reward difference were dropped.
        num_dropped (`int`): how many were.
        provenance (`Mapping[str, Setting]`): revisions, sampler steps, seed and what else is needed to make it again.
        limits (`tuple[str, ...]`), license (`str`): as in [`PolicyCardInfo`].
    """

    repo_id: str
    name: str
    num_rows: int
    num_candidates: int
    chunk_size: int
    action_dim: int
    demonstrations: str | None
    policy: str | None
    world_model: str | None
    rewards: Mapping[str, float]
    selection: str
    min_margin: float
    num_dropped: int
    provenance: Mapping[str, Setting]
    limits: tuple[str, ...] = ()
    license: str = "apache-2.0"

    def __post_init__(self):
        _check_repo_ids(demonstrations=self.demonstrations, policy=self.policy, world_model=self.world_model)


@dataclass(frozen=True, kw_only=True)
class DemonstrationCardInfo:
    """
    What the card of a LeRobot dataset says.

    Args:
        repo_id (`str`), name (`str`): what a reader passes to `load_dataset`, and the title.
        source (`str`): who demonstrated what and where, the end of the first sentence of the card.
        robot_type (`str`), fps (`float`), num_frames (`int`), image_size (`int`): as in `info.json`.
        tasks (`Mapping[str, int]`): instruction to number of episodes.
        features (`Mapping[str, str]`): column to its meaning.
        action_space (`str`), gripper (`str`): as in [`PolicyCardInfo`].
        conventions (`Mapping[str, Setting]`): renderer, camera and what else training and evaluation must share.
        recording (`Mapping[str, Setting]`): seeds, noise, dropped episodes.
        limits (`tuple[str, ...]`), license (`str`): as in [`PolicyCardInfo`].
    """

    repo_id: str
    name: str
    source: str
    robot_type: str
    fps: float
    num_frames: int
    image_size: int
    tasks: Mapping[str, int]
    features: Mapping[str, str]
    action_space: str
    gripper: str
    conventions: Mapping[str, Setting]
    recording: Mapping[str, Setting]
    limits: tuple[str, ...] = ()
    license: str = "apache-2.0"


def _check_repo_ids(**repo_ids: str | None) -> None:
    # Hub metadata takes repo ids only, and a path would tell strangers about the machine it was made on
    for name, repo_id in repo_ids.items():
        if repo_id is None:
            continue
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise ValueError(
                f"`{name}` is {repo_id!r}; expected a Hub repo id such as 'policy-sft' or 'owner/policy-sft', not a path."
            ) from error
