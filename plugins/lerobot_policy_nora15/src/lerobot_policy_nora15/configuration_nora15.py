# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the served policy is, and how its actions are used. Every field is an option `--policy.NAME` of lerobot's commands."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig


@PreTrainedConfig.register_subclass("nora15")
@dataclass
class Nora15Config(PreTrainedConfig):
    """
    The configuration of [`Nora15Policy`].

    Attributes:
        url (`str`): Of the server, as `nora15 serve` prints it.
        api_key_file (`str`, *optional*):
            File with the server's token. A file, since configurations are printed and pushed.
        n_action_steps (`int`, *optional*): Actions executed of each chunk; the whole chunk by default.
        cameras (`dict[str, str]`):
            The policy's camera to lerobot's feature, for example `{"wrist": "observation.images.image2"}`. The camera `top`
            is `observation.images.top`, and the camera `image` is `observation.image`, if nothing is said here. A policy with
            one camera takes the only picture there is, whatever its name.
        dataset_key (`str`, *optional*): In whose units state and actions are, of a policy trained on several datasets.
        num_steps (`int`, *optional*): Solver steps of the flow; the server's default otherwise.
        seed (`int`, *optional*):
            Of the flow's noise. The episodes of a process use `seed`, `seed + 1`, and so on, those of parallel environments
            row by row: with lerobot-eval's own `--seed` the noise belongs to the episode as in `nora15 evaluate`. Default:
            new noise in every episode.
        timeout (`float`): Seconds for one request, with all attempts to connect.
    """

    url: str = "ws://127.0.0.1:8000"
    api_key_file: str | None = None
    n_action_steps: int | None = None
    cameras: dict[str, str] = field(default_factory=dict)
    dataset_key: str | None = None
    num_steps: int | None = None
    seed: int | None = None
    timeout: float = 30.0
    # The server takes and gives physical units.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)
    )

    def __post_init__(self):
        super().__post_init__()
        for name in ("n_action_steps", "num_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be 1 or more.")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative.")
        if not self.timeout > 0:
            raise ValueError(f"timeout={self.timeout} must be a number of seconds greater than 0.")

    @property
    def observation_delta_indices(self) -> None:
        """The policy sees the present observation only."""
        return None

    @property
    def action_delta_indices(self) -> None:
        """No actions are read from a dataset: the policy is not trained here."""
        return None

    @property
    def reward_delta_indices(self) -> None:
        """No rewards are read."""
        return None

    def get_optimizer_preset(self):
        """Refused: lerobot cannot train a policy that another process holds."""
        raise NotImplementedError(
            "A served policy is not trained by lerobot: use `nora15 sft` on the LeRobot dataset."
        )

    def get_scheduler_preset(self) -> None:
        """None: see `get_optimizer_preset`."""
        return None

    def validate_features(self) -> None:
        """Nothing to do: [`Nora15Policy`] compares the features with what the server says of its policy."""
