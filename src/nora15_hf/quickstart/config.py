# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a quickstart run does: tasks, sizes and budgets of its stages."""

import dataclasses
from typing import Any

from ..runtime.noise_temperature import check_noise_temperature
from ..simulation.environment import Task, find_task
from ..simulation.environment_table import find_environment

STATE_FOLDER = ".quickstart"
DEFAULT_ENVIRONMENT = "metaworld"
DEFAULT_TASKS = ("faucet-open", "faucet-close", "button-press-topdown", "handle-press")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """
    The budget of every stage. The defaults fit six minutes on two CPU cores; [`QuickstartConfig.smoke`] a minute.

    Args:
        environment (`str`): A simulator with scripted experts, out of the table of environments.
        tasks (`tuple[str, ...]`): Its tasks; two that share a scene show whether the policy reads.
        episodes (`int`): Demonstrations per task; their seeds count from 0.
        evaluation_episodes (`int`): Episodes per task and policy; their seeds count from 10000.
        control_episodes (`int`): Episodes per task of random weights and of each control (swapped instruction, shuffled images).
        seed (`int`): Of weights, data order, noise and candidates.
        renderer (`str`): `"raycast"`, `"osmesa"`, `"egl"`, or `"auto"`: OpenGL where it works, else ray casting. The
            default draws the same pixels on every machine, and three times faster than OpenGL without a GPU.
        image_size (`int`): Side of the camera picture.
        max_steps (`int`): Step limit of an evaluation episode.
        num_action_steps (`int`): Actions executed of each chunk before looking again.
        temperature (`float`): Of the flow's noise in evaluation, see [`FlowSampler`]; candidates are sampled at 1.
        num_workers (`int`): Simulator processes.
        sft_steps, sft_batch_size, sft_learning_rate: Supervised training.
        encoder_steps, encoder_batch_size, encoder_learning_rate: World-model training, encoder and predictor together.
        predictor_steps, predictor_batch_size, predictor_learning_rate: World-model training, predictor alone.
        preference_states (`int`): States for which candidates are sampled.
        num_candidates (`int`): Chunks sampled per state.
        dpo_steps, dpo_batch_size, dpo_learning_rate, dpo_beta: Flow DPO; continued SFT gets the same steps, batch size
            and learning rate.
    """

    environment: str = DEFAULT_ENVIRONMENT
    tasks: tuple[str, ...] = DEFAULT_TASKS
    episodes: int = 25
    evaluation_episodes: int = 25
    control_episodes: int = 8
    seed: int = 0
    renderer: str = "raycast"
    image_size: int = 84
    max_steps: int = 150
    num_action_steps: int = 5
    temperature: float = 0.3
    num_workers: int = 2
    sft_steps: int = 230
    sft_batch_size: int = 64
    sft_learning_rate: float = 1e-3
    encoder_steps: int = 300
    encoder_batch_size: int = 16
    encoder_learning_rate: float = 1.5e-3
    predictor_steps: int = 350
    predictor_batch_size: int = 8
    predictor_learning_rate: float = 1.5e-3
    preference_states: int = 1200
    num_candidates: int = 5
    dpo_steps: int = 150
    dpo_batch_size: int = 64
    dpo_learning_rate: float = 1e-5
    dpo_beta: float = 50.0

    def __post_init__(self):
        if not self.tasks:
            raise ValueError("tasks is empty: name at least one, for example faucet-open.")
        repeated = sorted({task for task in self.tasks if self.tasks.count(task) > 1})
        if repeated:
            raise ValueError(f"tasks names {repeated} more than once.")
        for task in self.tasks:
            self.task(task)
        for field in dataclasses.fields(self):
            if field.type is int and field.name != "seed" and getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)} must be at least 1.")
        check_noise_temperature(self.temperature)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} must be between 0 and 2**32 - 1.")

    @classmethod
    def smoke(cls, **overrides) -> "QuickstartConfig":
        """Every stage, each as short as it can be: tests that the pipeline works, not that the policy learns."""
        tiny = {
            "tasks": ("faucet-open", "faucet-close"),
            "episodes": 2,
            "evaluation_episodes": 1,
            "control_episodes": 1,
            "image_size": 56,
            "max_steps": 100,
            "sft_steps": 6,
            "sft_batch_size": 8,
            "encoder_steps": 4,
            "encoder_batch_size": 8,
            "predictor_steps": 4,
            "predictor_batch_size": 4,
            "preference_states": 16,
            "dpo_steps": 4,
            "dpo_batch_size": 4,
        }
        return cls(**(tiny | overrides))

    def task(self, name: str) -> Task:
        """A task of the environment."""
        return find_task(find_environment(self.environment).tasks, name)

    @property
    def environment_settings(self) -> dict[str, Any]:
        """Settings of the environment, those included that the tasks need."""
        settings = {"image_size": self.image_size, "renderer": self.renderer, "max_steps": self.max_steps}
        for name in self.tasks:
            settings |= self.task(name).needed_settings
        return settings


__all__ = ["DEFAULT_ENVIRONMENT", "DEFAULT_TASKS", "STATE_FOLDER", "QuickstartConfig"]
