# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What is compared: tasks, budgets, seeds and arms of the study. `docs/evidence.md` holds the plan in words."""

from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from nora15_hf.quickstart.config import QuickstartConfig
from nora15_hf.repo_files.settings import as_json

TASKS = (
    "faucet-open",
    "faucet-close",
    "window-open",
    "window-close",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "handle-press",
)
"""Eight tasks in five scenes; three scenes show two tasks that only the instruction tells apart."""

REWARDS = ("end_goal", "subgoal", "ground_truth")
"""By which every set of candidates is scored: distance to the end of the episode, to the frame a chunk later, to the demonstration."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """
    What all arms of a training seed begin with.

    Attributes:
        tasks (`tuple[str, ...]`): Of Meta-World.
        demonstrations (`int`): Per task; the same for all training seeds.
        sft_steps (`int`): Of supervised training, the schedule included: it ends at 50 to 75 % success.
        world_model (`bool`), encoder_steps (`int`), predictor_steps (`int`): Whether there is a world model, and its training.
        states (`int`), candidates (`int`): Demonstrated states with candidates, and candidates at each.
        candidate_temperature (`float`): Of the flow's noise when candidates are sampled, see [`FlowSampler`].
        reached_episodes (`int`): Per task, in which the policy acts first.
        rollout_states (`int`): Demonstrated states whose candidates are rolled out in the simulator.
    """

    tasks: tuple[str, ...] = TASKS
    demonstrations: int = 25
    sft_steps: int = 180
    world_model: bool = True
    encoder_steps: int = 300
    predictor_steps: int = 500
    states: int = 1500
    candidates: int = 5
    candidate_temperature: float = 1.0
    reached_episodes: int = 12
    rollout_states: int = 320

    @property
    def settings(self) -> dict[str, Any]:
        """All that moves its numbers, in JSON types."""
        # Results from before there was a choice do not name the temperature.
        return {name: value for name, value in asdict(self).items() if (name, value) != ("candidate_temperature", 1.0)}

    def pipeline(self, training_seed: int) -> QuickstartConfig:
        """The same as a configuration of the quickstart, whose stages make policy and world model."""
        return QuickstartConfig(
            tasks=self.tasks,
            episodes=self.demonstrations,
            seed=training_seed,
            num_workers=1,
            sft_steps=self.sft_steps,
            encoder_steps=self.encoder_steps,
            predictor_steps=self.predictor_steps,
            preference_states=self.states,
            num_candidates=self.candidates,
        )


@dataclass(frozen=True, kw_only=True)
class Arm:
    """
    What is done to the policy before it is evaluated.

    Attributes:
        kind (`str`): `"supervised"`, nothing; `"continued_sft"`; `"reward_weighted"`; or `"dpo"`.
        states (`str`): `"demonstrations"`, those of them that were rolled out (`"rollouts"`), or those of the expert's
            `"recoveries"` from where the policy led.
        rewards (`dict[str, float]`): Weight of each reward that ranks candidates.
        standardize (`bool`): Whether each reward is standardised within a state before it is weighted.
        steps (`int`), batch_size (`int`), learning_rate (`float`), beta (`float`), sft_weight (`float`): Of training.
        temperature (`float`): Of the flow's noise in evaluation, see [`FlowSampler`].
        decoder (`str`): In evaluation, `"flow"` or the likeliest FAST tokens, `"fast"`.
        rounds (`int`): Each samples new candidates of the policy of the round before, and trains for `steps`.
    """

    kind: str
    states: str = "demonstrations"
    rewards: dict[str, float] = field(default_factory=dict)
    standardize: bool = False
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-5
    beta: float = 50.0
    sft_weight: float = 0.0
    temperature: float = 1.0
    decoder: str = "flow"
    rounds: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """All that moves its numbers, in JSON types."""
        # Results from before there was a choice do not name the flow.
        return {name: value for name, value in asdict(self).items() if (name, value) != ("decoder", "flow")}

    @property
    def needed_states(self) -> str | None:
        """The states whose candidates, or whose demonstrations, it is trained on; `None` without training."""
        return None if self.kind == "supervised" else self.states


@dataclass(frozen=True, kw_only=True)
class Study:
    """
    A set of arms on a set of training seeds.

    Attributes:
        name (`str`): Of its files.
        base ([`Base`]): What all arms begin with.
        seeds (`tuple[int, ...]`): Of training: weights, data order, noise and candidates.
        episodes_per_task (`int`), first_episode_seed (`int`), episode_seed_step (`int`):
            Evaluation episodes of each task; those of a training seed begin at `first_episode(seed)`.
        arms (`dict[str, Arm]`): By name.
    """

    name: str
    base: Base
    seeds: tuple[int, ...]
    episodes_per_task: int
    first_episode_seed: int
    episode_seed_step: int
    arms: dict[str, Arm]

    def first_episode(self, seed: int) -> int:
        """Seed of a task's first evaluation episode."""
        return self.first_episode_seed + self.episode_seed_step * seed

    def settings(self, arm: str | None = None) -> dict[str, Any]:
        """All that moves the results of an arm, or of what is common to all, in JSON types; the training seed comes beside it."""
        settings = {
            "base": self.base.settings,
            "episodes_per_task": self.episodes_per_task,
            "first_episode_seed": self.first_episode_seed,
            "episode_seed_step": self.episode_seed_step,
        }
        return as_json(settings if arm is None else settings | {"arm": self.arms[arm].settings})


CONTROLS = ("supervised", "continued-sft")
PRIMARY_ARMS = ("dpo-ground-truth", "dpo-end-goal", "dpo-equal-say", "dpo-ground-truth-reached", "dpo-rounds-3")
"""Among which the target is decided."""
LONGER_CONTROLS = {"dpo-rounds-3": "continued-sft-3x"}
"""Arm that trains for more steps than the others to the control that trains for as many."""
EXPLORATORY_ARMS = ("dpo-success-cold", "supervised-fast", "dpo-rounds-3-cold")
"""Added after the first results, and no part of any family of tests."""

# Chosen in the pilot: of each kind the setting with the highest success, of flow DPO among those without a warning of the collapse guard.
DPO = Arm(kind="dpo", learning_rate=1e-5, beta=50.0)
CONTINUED_SFT = Arm(kind="continued_sft", learning_rate=3e-5)
LOW_TEMPERATURE = 0.3
BASE = Base()


def _pilot_arms() -> dict[str, Arm]:
    """One training seed; for the choice of learning rate, beta and anchor of either kind of training."""
    arms = {"supervised": Arm(kind="supervised"), "continued-sft": Arm(kind="continued_sft")}
    for temperature in (0.7, 0.5, 0.3, 0.0):
        arms[f"supervised-temperature{temperature:g}"] = Arm(kind="supervised", temperature=temperature)
    for learning_rate, beta, sft_weight in (
        (1e-5, 50.0, 0.0),
        (3e-5, 50.0, 0.0),
        (1e-5, 10.0, 0.0),
        (3e-5, 10.0, 0.0),
        (1e-4, 50.0, 1.0),
    ):
        arms |= _mapped_arm(learning_rate, beta, sft_weight)
    for learning_rate in (3e-5, 1e-4):
        arms[f"continued-sft-lr{learning_rate:g}"] = Arm(kind="continued_sft", learning_rate=learning_rate)
    return arms


def _mapped_arm(learning_rate: float, beta: float, sft_weight: float, rounds: int = 1) -> dict[str, Arm]:
    """Flow DPO by the distance to the demonstration, under a name that tells its settings."""
    name = f"dpo-ground-truth-lr{learning_rate:g}-beta{beta:g}-sft{sft_weight:g}"
    arm = Arm(
        kind="dpo",
        rewards={"ground_truth": 1.0},
        learning_rate=learning_rate,
        beta=beta,
        sft_weight=sft_weight,
        rounds=rounds,
    )
    return {name if rounds == 1 else f"{name}-rounds{rounds}": arm}


def _settings_map_arms() -> dict[str, Arm]:
    """The rest of the settings map, on the pilot's seed and episodes; run after the final arms, and nothing was chosen by it."""
    arms = {}
    for learning_rate, beta, sft_weight in product((1e-5, 3e-5, 1e-4), (10.0, 50.0, 250.0), (0.0, 1.0)):
        arms |= _mapped_arm(learning_rate, beta, sft_weight)
    return arms | _mapped_arm(1e-5, 50.0, 0.0, rounds=3) | _mapped_arm(3e-5, 10.0, 0.0, rounds=3)


PILOT = Study(
    name="pilot",
    base=replace(BASE, world_model=False),
    seeds=(100,),
    episodes_per_task=25,
    first_episode_seed=10_000,
    episode_seed_step=0,
    arms=_pilot_arms() | _settings_map_arms(),
)


def _final_arms() -> dict[str, Arm]:
    """In the order of their importance, in which they run."""
    ground_truth, end_goal, subgoal = {"ground_truth": 1.0}, {"end_goal": 1.0}, {"subgoal": 1.0}
    cold = {"temperature": LOW_TEMPERATURE}
    return {
        "supervised": Arm(kind="supervised"),
        "continued-sft": CONTINUED_SFT,
        "dpo-ground-truth": replace(DPO, rewards=ground_truth),
        "dpo-end-goal": replace(DPO, rewards=end_goal),
        "dpo-equal-say": replace(DPO, rewards=end_goal | ground_truth, standardize=True),
        "supervised-cold": Arm(kind="supervised", **cold),
        "continued-sft-cold": replace(CONTINUED_SFT, **cold),
        "dpo-ground-truth-cold": replace(DPO, rewards=ground_truth, **cold),
        "dpo-equal-say-cold": replace(DPO, rewards=end_goal | ground_truth, standardize=True, **cold),
        "dpo-ground-truth-reached": replace(DPO, states="recoveries", rewards=ground_truth),
        "continued-sft-reached": replace(CONTINUED_SFT, states="recoveries"),
        "reward-weighted": replace(CONTINUED_SFT, kind="reward_weighted", rewards=ground_truth),
        "dpo-success": replace(DPO, states="rollouts", rewards={"success": 1.0}),
        "dpo-ground-truth-rollouts": replace(DPO, states="rollouts", rewards=ground_truth),
        "dpo-subgoal": replace(DPO, rewards=subgoal),
        "dpo-equal-say-subgoal": replace(DPO, rewards=subgoal | ground_truth, standardize=True),
        "dpo-paper": replace(DPO, rewards=end_goal | {"ground_truth": 0.5}),
        "dpo-paper-subgoal": replace(DPO, rewards=subgoal | {"ground_truth": 0.5}),
        "dpo-rounds-3": replace(DPO, states="recoveries", rewards=ground_truth, rounds=3),
        "continued-sft-3x": replace(CONTINUED_SFT, steps=3 * CONTINUED_SFT.steps),
        # Added after the first results, which showed that the temperature hides what DPO by the distance teaches.
        "dpo-success-cold": replace(DPO, states="rollouts", rewards={"success": 1.0}, **cold),
        "supervised-fast": Arm(kind="supervised", decoder="fast"),
        "dpo-rounds-3-cold": replace(DPO, states="recoveries", rewards=ground_truth, rounds=3, **cold),
    }


FINAL = Study(
    name="final",
    base=BASE,
    seeds=(0, 1, 2, 3, 4),
    episodes_per_task=50,
    first_episode_seed=20_000,
    episode_seed_step=1000,
    arms=_final_arms(),
)
LATER = replace(
    FINAL,
    name="later",
    arms={
        name: FINAL.arms[name]
        for name in (
            *CONTROLS,
            "supervised-cold",
            "dpo-rounds-3",
            "dpo-rounds-3-cold",
            "continued-sft-3x",
            "dpo-ground-truth",
            "dpo-ground-truth-reached",
            "continued-sft-reached",
            "dpo-equal-say-subgoal",
            "dpo-paper-subgoal",
            "supervised-fast",
        )
    },
)
"""
Those arms of the final study that ran later, on a processor of another make, on which the same training gives slightly other weights.
Hence everything that they are compared with ran there again.
"""
DEMONSTRATIONS = tuple(
    Study(
        name=f"demonstrations{count}",
        base=replace(BASE, demonstrations=count, world_model=False),
        seeds=(0, 1, 2),
        episodes_per_task=25,
        first_episode_seed=40_000,
        episode_seed_step=1000,
        arms={
            name: FINAL.arms[name]
            for name in (*CONTROLS, "dpo-ground-truth", "supervised-cold", "dpo-ground-truth-cold")
        },
    )
    for count in (5, 10, 40)
)
"""The same with fewer and with more demonstrations of each task."""
WIDE = replace(
    FINAL,
    name="wide",
    base=replace(BASE, candidates=10, candidate_temperature=2.0),
    seeds=(0, 1, 2),
    arms={name: FINAL.arms[name] for name in (*CONTROLS, "dpo-ground-truth", "dpo-end-goal", "dpo-success")},
)
"""The same with twice as many candidates, sampled from twice the noise."""

LONGER = replace(
    FINAL,
    name="longer",
    base=replace(BASE, sft_steps=BASE.sft_steps + CONTINUED_SFT.steps, world_model=False),
    arms={name: FINAL.arms[name] for name in ("supervised", "supervised-cold")},
)
"""Supervised training that takes as many steps as that of the other studies and what follows it together, with one schedule."""

VARIANTS = "variants"
"""Under which the raw results of `reward_variants.py` are kept."""
STUDIES = {study.name: study for study in (PILOT, FINAL, LATER, *DEMONSTRATIONS, WIDE, LONGER)}
