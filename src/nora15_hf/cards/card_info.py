# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The contents of a card: plain frozen dataclasses, checked when they are created."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from typing import Any, ClassVar, Literal, Self, get_args

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..simulation.installation import public_command
from .card_settings import Setting

NOT_STATED = "not stated"
"""Stands for a fact that is not known, so that the gap is visible."""

TrainingStage = Literal["sft", "continued-sft", "dpo"]
Stage = Literal[TrainingStage, "not stated"]


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
class Conversion:
    """
    What is known of a policy or world model whose weights come from another repo unchanged.

    Args:
        source (`str`): where from, without a path of this machine.
        dtypes (`str`): of the stored weights.
        parts (`Mapping[str, str]`): part to where it was taken from: tokenizer, FAST codec, action statistics, encoder.
        seed (`int`, *optional*): of an action expert that the source lacked and that is newly initialised.
        raw_dimensions (`Mapping[str, Sequence[int]]`): dataset key to the action dimensions that are left raw.
    """

    source: str
    dtypes: str
    parts: Mapping[str, str]
    seed: int | None = None
    raw_dimensions: Mapping[str, list[int]] = field(default_factory=dict)


def _library_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("nora15_hf", "transformers", "peft")}


@dataclass(frozen=True, kw_only=True)
class CardInfo:
    """
    What every card says. A card is a function of this alone, so that it can be written again under another name.

    Args:
        repo_id (`str`): what a reader passes to `from_pretrained` or `load_dataset`.
        name (`str`): title of the card.
        limits (`tuple[str, ...]`): sentences added to the general limits.
        license (`str`, *optional*): Hub licence identifier; `None` where it is that of the original weights.
        versions (`Mapping[str, str]`): package to version; those installed by default.
        installation (`str`, *optional*): command that installs nora15_hf on any machine; `None` where only its repository can
            be named.
        extra_tags (`tuple[str, ...]`): tags of the author's, behind those that every such artefact has.

    Raises:
        ValueError: a field that names another repo holds no Hub repo id.
    """

    template: ClassVar[str]
    tags: ClassVar[tuple[str, ...]]
    # Field whose value is a tag, too.
    tag_field: ClassVar[str | None] = None
    # Of libraries that made it, besides the one that loads it.
    library_tags: ClassVar[tuple[str, ...]] = ()
    # Fields that name other repos: an id, several, or None.
    references: ClassVar[tuple[str, ...]] = ()

    repo_id: str
    name: str
    limits: tuple[str, ...] = ()
    license: str | None = "apache-2.0"
    versions: Mapping[str, str] = field(default_factory=_library_versions)
    installation: str | None = field(default_factory=public_command)
    extra_tags: tuple[str, ...] = ()

    def __post_init__(self):
        for reference in self.references:
            named = vars(self)[reference]
            if isinstance(named, str):
                check_repo_id(reference, named)
            for index, repo_id in enumerate(() if isinstance(named, str | None) else named):
                check_repo_id(f"{reference}[{index}]", repo_id)

    def addressed(self, repo_id: str) -> Self:
        """The same under the name `repo_id`, `namespace/name`; bare names of other repos get its namespace."""
        named = {reference: address(vars(self)[reference], repo_id, self.repo_id) for reference in self.references}
        return replace(self, repo_id=repo_id, **named)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, for [`from_dict`]."""
        return json.loads(json.dumps({"kind": type(self).__name__} | asdict(self), default=str))


@dataclass(frozen=True, kw_only=True)
class ModelCardInfo(CardInfo):
    """
    What the card of a model says.

    Args:
        num_parameters (`int`): number of parameters in the repo.
        training (`Mapping[str, Setting]`): hyper-parameters.
        base_model (`str`, *optional*): repo that training started from.
        datasets (`tuple[str, ...]`): repos trained on.
        evaluation ([`Evaluation`], *optional*): closed-loop results, of a policy.
        conversion ([`Conversion`], *optional*): for weights that were not trained but converted.
        is_adapter (`bool`): whether the repo holds adapters of `base_model` instead of a whole model.
        others: as in [`CardInfo`].
    """

    library: ClassVar[str] = "transformers"
    references: ClassVar[tuple[str, ...]] = ("base_model", "datasets")

    num_parameters: int
    training: Mapping[str, Setting] = field(default_factory=dict)
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    evaluation: Evaluation | None = None
    conversion: Conversion | None = None
    is_adapter: bool = False


@dataclass(frozen=True, kw_only=True)
class PolicyCardInfo(ModelCardInfo):
    """
    What the card of a policy says, see [`~nora15_hf.cards.policy_card.policy_card_info`].

    Args:
        stage (`str`): `"sft"`, `"continued-sft"`, `"dpo"` or `"not stated"`.
        image_size (`int`): side of the square model image in pixels.
        chunk_size (`int`), action_dim (`int`): shape of a chunk.
        n_action_steps (`int`): actions executed before the next query.
        action_space (`str`): meaning and unit of each action dimension.
        gripper (`str`): meaning of the gripper's sign.
        normalization (`str`): which statistics map which dimensions to which range.
        state_dim (`int`, *optional*): width of the robot state that the policy reads; `None` when it reads none.
        relative_actions (`bool`): whether actions are differences from the state.
        cameras (`tuple[str, ...]`): those that it is shown under the first dataset key, in their order; empty when not known.
        statistics_keys (`tuple[str, ...]`): dataset keys with statistics in the checkpoint.
        decoder (`str`): how actions are sampled, with the number of steps.
        example_instruction (`str`): an instruction of the training data, used in the usage snippet.
        started_from (`str`): what to say without a `base_model`.
        rewards (`Mapping[str, float]`): weight of each reward behind the preferences; empty without preferences.
        curves (`str`, *optional*): file in the repo with the curves of a preference training.
        others: as in [`ModelCardInfo`].

    Raises:
        ValueError: an unknown stage, no dataset key, or a `base_model` or dataset that is no Hub repo id.
    """

    template: ClassVar[str] = "policy.md"
    tags: ClassVar[tuple[str, ...]] = ("nora15", "nora15_hf", "robotics", "vision-language-action", "flow-matching")
    tag_field: ClassVar[str] = "stage"

    stage: Stage
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
    state_dim: int | None = None
    relative_actions: bool = False
    cameras: tuple[str, ...] = ()
    started_from: str = "random weights"
    rewards: Mapping[str, float] = field(default_factory=dict)
    curves: str | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.stage not in get_args(Stage):
            raise ValueError(f"`stage` is {self.stage!r}; expected one of {', '.join(get_args(Stage))}.")
        if not self.statistics_keys:
            raise ValueError("`statistics_keys` is empty: pass the dataset keys of the processor's action statistics.")

    @property
    def library_tags(self) -> tuple[str, ...]:
        """The Hub's tag of TRL for a policy that was tuned with it."""
        return ("trl",) if self.stage == "dpo" else ()


@dataclass(frozen=True, kw_only=True)
class AdapterCardInfo(ModelCardInfo):
    """
    What the card of a LoRA adapter says.

    Args:
        base_model (`str`): repo of the policy that the adapter belongs to.
        rank (`int`), alpha (`float`): of the low-rank matrices.
        target_modules (`str` or `tuple[str, ...]`): layers that are adapted: a pattern, or names.
        modules_to_save (`tuple[str, ...]`): modules that were trained as a whole.
        has_processor (`bool`): whether the processor of the adapter's training is in the repo, whose statistics may be others
            than the base model's.
        others: as in [`ModelCardInfo`].
    """

    template: ClassVar[str] = "lora_adapter.md"
    tags: ClassVar[tuple[str, ...]] = ("nora15", "nora15_hf", "robotics", "vision-language-action", "lora")
    library: ClassVar[str] = "peft"

    is_adapter: bool = True
    base_model: str = field()
    rank: int
    alpha: float
    target_modules: str | tuple[str, ...]
    modules_to_save: tuple[str, ...]
    has_processor: bool = False


@dataclass(frozen=True, kw_only=True)
class WorldModelCardInfo(ModelCardInfo):
    """
    What the card of a world model says.

    Args:
        image_size (`int`): side of the square model image in pixels.
        action_dim (`int`): width of an action.
        horizon (`int`): number of steps it is rolled out for.
        encoder (`str`): where the encoder's weights come from and whether they were trained.
        frame_step (`str`): time between two frames, for example `"one control step, 1/80 s"`.
        action_space (`str`): meaning of each action dimension.
        action_scale (`str`): how actions are normalised.
        state_input (`str`): what is passed as robot state.
        pose_dim (`int`, *optional*): width of the pose that `rollout` needs; `None` when it needs none.
        metrics (`Mapping[str, Setting]`): held-out losses, action sensitivity, collapse metric.
        others: as in [`ModelCardInfo`].
    """

    template: ClassVar[str] = "world_model.md"
    tags: ClassVar[tuple[str, ...]] = ("vjepa2_ac", "nora15_hf", "robotics", "world-model", "reward-model")

    image_size: int
    action_dim: int
    horizon: int
    encoder: str
    frame_step: str
    action_space: str
    action_scale: str
    state_input: str
    pose_dim: int | None = None
    metrics: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DatasetCardInfo(CardInfo):
    """
    What the card of a dataset says.

    Args:
        data_files (`str`): pattern of the parquet files, relative to the folder; `load_dataset` finds the rows by it.
        num_rows (`int`): rows of these files: frames, or preference pairs.
        demonstrations (`str`, *optional*): repo that the observations come from, where that is another one.
        others: as in [`CardInfo`].
    """

    data_files: str
    num_rows: int
    demonstrations: str | None = None


@dataclass(frozen=True, kw_only=True)
class PreferenceCardInfo(DatasetCardInfo):
    """
    What the card of a preference dataset says.

    Args:
        num_candidates (`int`), chunk_size (`int`), action_dim (`int`): shapes.
        policy (`str`), world_model (`str`): repos that candidates and imagined futures come from; `None` where there is
            none, or where it is not known.
        rewards (`Mapping[str, float]`): weight of each reward in the combination.
        selection (`str`): how chosen and rejected were picked, for example `"best against worst of the candidates"`.
        min_margin (`float`): pairs below this reward difference were dropped.
        num_dropped (`int`): how many were.
        provenance (`Mapping[str, Setting]`): revisions, sampler steps, seed and what else is needed to make it again.
        decisions (`Mapping[str, list[str]]`): a row of text for each reward: weight, spread within states, ties, pairs that would be the
            same with it alone, and without it.
        agreement (`Mapping[str, float]`): Kendall's tau of each two rewards.
        warning (`str`, *optional*): what to think about where one reward decides.
        figures (`tuple[str, ...]`): pictures in the repo.
        others: as in [`DatasetCardInfo`].
    """

    template: ClassVar[str] = "preferences.md"
    tags: ClassVar[tuple[str, ...]] = ("nora15_hf", "robotics", "preferences", "dpo")
    references: ClassVar[tuple[str, ...]] = ("demonstrations", "policy", "world_model")

    num_candidates: int
    chunk_size: int
    action_dim: int
    policy: str | None
    world_model: str | None
    rewards: Mapping[str, float]
    selection: str
    min_margin: float
    num_dropped: int
    provenance: Mapping[str, Setting]
    decisions: Mapping[str, list[str]] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    warning: str | None = None
    figures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DemonstrationCardInfo(DatasetCardInfo):
    """
    What the card of a LeRobot dataset says.

    Args:
        source (`str`): who demonstrated what and where, the end of the first sentence of the card.
        version (`str`), robot_type (`str`), num_episodes (`int`), fps (`float`): as in `info.json`.
        cameras (`Mapping[str, str]`): camera feature to size, channels and storage of its pictures.
        tasks (`Mapping[str, int or str]`): instruction to number of episodes.
        features (`Mapping[str, str]`): column to its meaning.
        action_space (`str`), gripper (`str`): as in [`PolicyCardInfo`].
        conventions (`Mapping[str, Setting]`): renderer, camera and what else training and evaluation must share.
        recording (`Mapping[str, Setting]`): seeds, noise, dropped episodes.
        others: as in [`DatasetCardInfo`].
    """

    template: ClassVar[str] = "demonstrations.md"
    tags: ClassVar[tuple[str, ...]] = ("LeRobot", "nora15_hf", "robotics")
    tag_field: ClassVar[str] = "robot_type"

    source: str
    version: str
    robot_type: str
    num_episodes: int
    fps: float
    cameras: Mapping[str, str]
    tasks: Mapping[str, int | str]
    features: Mapping[str, str]
    action_space: str
    gripper: str
    conventions: Mapping[str, Setting]
    recording: Mapping[str, Setting]


_KINDS = {
    kind.__name__: kind
    for kind in (PolicyCardInfo, AdapterCardInfo, WorldModelCardInfo, PreferenceCardInfo, DemonstrationCardInfo)
}


def from_dict(values: Mapping[str, Any]) -> CardInfo | None:
    """
    The [`CardInfo`] behind what [`~CardInfo.to_dict`] returned; `None` if another version of this package wrote it.
    """
    kind = _KINDS.get(values.get("kind"))
    if kind is None or values.keys() - {"kind"} != {entry.name for entry in fields(kind)}:
        return None
    nested = {"evaluation": Evaluation, "conversion": Conversion}
    return kind(
        **{
            name: nested[name](**value)
            if name in nested and value is not None
            else tuple(value)
            if isinstance(value, list)
            else value
            for name, value in values.items()
            if name != "kind"
        }
    )


def address(named: str | list[str] | tuple[str, ...] | None, repo_id: str, own_name: str) -> Any:
    """
    Names of repos beside the one that `own_name` becomes on the Hub, `repo_id`: in its namespace where they have none.
    """
    if named is None or (isinstance(named, str) and "/" in named):
        return named
    if isinstance(named, str):
        return repo_id if named == own_name else f"{repo_id.split('/')[0]}/{named}"
    return type(named)(address(name, repo_id, own_name) for name in named)


def check_repo_id(name: str, repo_id: str) -> str:
    """
    `repo_id`, if it is one: Hub metadata takes nothing else, and a path would tell strangers about the machine.

    Raises:
        ValueError: names the argument `name`.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"`{name}` is {repo_id!r}; expected a Hub repo id such as 'policy-sft' or 'owner/policy-sft', not a path."
        ) from error
    return repo_id


__all__ = [
    "NOT_STATED",
    "AdapterCardInfo",
    "CardInfo",
    "Conversion",
    "DatasetCardInfo",
    "DemonstrationCardInfo",
    "Evaluation",
    "ModelCardInfo",
    "PolicyCardInfo",
    "PreferenceCardInfo",
    "Stage",
    "TrainingStage",
    "WorldModelCardInfo",
    "address",
    "check_repo_id",
    "from_dict",
]
