# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The served policy as lerobot calls it: batches of observations in, actions in physical units out."""

import json
import logging
import secrets
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import PreTrainedPolicy
from torch import Tensor, nn

from .configuration_nora15 import Nora15Config
from .server_connection import ServerConnection

logger = logging.getLogger(__name__)

IMAGES, STATE, ACTION = "observation.image", "observation.state", "action"


class Nora15Policy(PreTrainedPolicy):
    """
    NORA-1.5 behind a server.

    All rows of a batch go to the server in one request and through the policy in one pass. A request names its own noise, so
    that the server keeps nothing of an episode, and nothing is lost with a connection.

    Args:
        config ([`Nora15Config`]): Where the server is.
        **kwargs: What lerobot hands to every policy, statistics of a dataset for example; not needed here.

    Raises:
        ValueError: The server's policy does not fit lerobot's features, or the configuration.
        ConnectionError, PermissionError, TimeoutError: See [`ServerConnection`].
    """

    config_class = Nora15Config
    name = "nora15"

    def __init__(self, config: Nora15Config, **kwargs: Any):
        super().__init__(config)
        # lerobot asks policies for their parameters' device, and saves them.
        self.placeholder = nn.Parameter(torch.zeros(1), requires_grad=False)
        api_key = Path(config.api_key_file).read_text().strip() if config.api_key_file else None
        self._server = ServerConnection(config.url, api_key=api_key, timeout=config.timeout)
        self._check_fit()
        self._episodes_begun = 0
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path | None, *, config: PreTrainedConfig | None = None, **kwargs: Any
    ) -> "Nora15Policy":
        """
        From a configuration alone: the weights are the server's.

        Args:
            pretrained_name_or_path (`str` or `Path`, *optional*): A folder or Hub repo with `config.json`; not read with `config`.
            config ([`Nora15Config`], *optional*): The configuration.
            **kwargs: For `Nora15Config.from_pretrained`.
        """
        policy = cls(config or Nora15Config.from_pretrained(pretrained_name_or_path, **kwargs))
        return policy.to(policy.config.device).eval()

    def reset(self) -> None:
        """Begins an episode, or one in each of several parallel environments: planned actions are dropped."""
        self._planned: deque[Tensor] = deque()
        self._noise_seeds: list[int] = []
        self._predictions = 0

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """
        The actions of the present step, of the present chunks or, when these are used up, of new ones.

        Args:
            batch (`dict`): As for `predict_action_chunk`.

        Returns:
            `Tensor` of shape `(B, A)`, float32, physical units.
        """
        if not self._planned:
            chunks = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._planned.extend(chunks.unbind(1))
        return self._planned.popleft()

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """
        Asks the server for a chunk per row; the next call has other noise.

        Args:
            batch (`dict`):
                What lerobot's preprocessor returns: `observation.images.*` or `observation.image`, floating point
                `(B, 3, height, width)` in [0, 1]; `observation.state` `(B, S)` in physical units, for a policy that needs one;
                `task`, the instructions.

        Returns:
            `Tensor` of shape `(B, H, A)`, float32, physical units, on the CPU.

        Raises:
            ValueError: Something is missing in the batch, or the server's actions are not finite or of another shape.
            PolicyServerError: The server refused the request.
        """
        tasks = [batch["task"]] if isinstance(batch["task"], str) else list(batch["task"])
        keys = self._server.metadata["observation_keys"]
        columns = {
            path: _as_uint8(batch[feature], feature)
            for path, feature in self._camera_features(key for key in batch if key.startswith(IMAGES)).items()
        }
        if self._server.metadata["state_dim"] is not None:
            if STATE not in batch:
                raise ValueError(
                    f"The batch has no {STATE!r}, which the policy of {self.config.url} needs; it has {sorted(batch)}."
                )
            columns[keys["state"][0]] = batch[STATE].to("cpu", torch.float32).numpy()
        self._draw_noise_seeds(len(tasks))
        requests = [
            {path: column[row] for path, column in columns.items()}
            | {keys["prompt"]: task, "noise_key": [self._noise_seeds[row], self._predictions]}
            | self._request_options()
            for row, task in enumerate(tasks)
        ]
        chunks = self._server.request({"batch": requests})["actions"]
        expected = (len(tasks), self._server.metadata["action_horizon"], self._server.metadata["action_dim"])
        if chunks.shape != expected or not np.isfinite(chunks).all():
            raise ValueError(
                f"{self.config.url} answered actions of shape {chunks.shape}, expected finite ones of shape {expected}."
            )
        self._predictions += 1
        # A copy, since what a frame holds is read-only.
        return torch.from_numpy(chunks.astype(np.float32))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        """Refused: see [`Nora15Config.get_optimizer_preset`]."""
        self.config.get_optimizer_preset()

    def get_optim_params(self) -> dict:
        """Refused: see [`Nora15Config.get_optimizer_preset`]."""
        self.config.get_optimizer_preset()

    def _draw_noise_seeds(self, rows: int) -> None:
        """One seed per row, at the first prediction of the episodes: only then the number of rows is known."""
        if not self._noise_seeds:
            if self.config.seed is None:
                self._noise_seeds = [secrets.randbits(63) for _ in range(rows)]
            else:
                first = self.config.seed + self._episodes_begun
                self._noise_seeds = list(range(first, first + rows))
            self._episodes_begun += rows
        if len(self._noise_seeds) != rows:
            raise ValueError(
                f"The batch has {rows} row(s), but the episodes began with {len(self._noise_seeds)}: call reset() first."
            )

    def _request_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.config.dataset_key is not None:
            options["dataset_key"] = self.config.dataset_key
        if self.config.num_steps is not None:
            options["sampling_params"] = {"num_inference_steps": self.config.num_steps}
        return options

    def _camera_features(self, available: Iterable[str]) -> dict[str, str]:
        """Where the server looks for each of its cameras, to the feature of lerobot that is sent there."""
        # A repo from before cameras were named: the policy takes the only picture.
        paths = self._server.metadata["observation_keys"]["images"] or {"image": "image"}
        available = sorted(available)
        if unknown := sorted(self.config.cameras.keys() - paths.keys()):
            raise ValueError(
                f"--policy.cameras names {unknown}, but the policy of {self.config.url} has the cameras {list(paths)}."
            )
        if len(paths) == len(available) == 1 and not self.config.cameras:
            return dict(zip(paths.values(), available, strict=True))
        default = {camera: f"observation.images.{camera}" for camera in paths}
        if IMAGES in available:
            default["image"] = IMAGES
        features = {camera: self.config.cameras.get(camera, default[camera]) for camera in paths}
        if missing := {camera: feature for camera, feature in features.items() if feature not in available}:
            camera = next(iter(missing))
            example = json.dumps({camera: available[0] if available else f"observation.images.{camera}"})
            raise ValueError(
                f"The pictures {available} lack {missing}. Name the feature of every camera of the policy, for example "
                f"--policy.cameras='{example}'."
            )
        return {paths[camera]: feature for camera, feature in features.items()}

    def _check_fit(self) -> None:
        """Compares the served policy with lerobot's features, as far as these are known, before anything moves."""
        metadata = self._server.metadata
        found = []
        if self.config.action_feature and tuple(self.config.action_feature.shape) != (metadata["action_dim"],):
            found.append(
                f"actions of shape {self.config.action_feature.shape}, the policy's have {metadata['action_dim']}"
            )
        needed, given = metadata["state_dim"], self.config.robot_state_feature
        if needed is not None and given and tuple(given.shape) != (needed,):
            found.append(f"a state of shape {given.shape}, the policy's has {needed} dimensions")
        if found:
            raise ValueError(f"lerobot has {' and '.join(found)} ({self.config.url}).")
        if self.config.n_action_steps and self.config.n_action_steps > metadata["action_horizon"]:
            raise ValueError(
                f"n_action_steps={self.config.n_action_steps} is more than the policy's chunk of {metadata['action_horizon']}."
            )
        if len(metadata["observation_keys"]["state"]) > 1:
            raise ValueError(
                f"The server at {self.config.url} takes the state in parts, {metadata['observation_keys']['state']}. Start it "
                "without --robot: lerobot has one state."
            )
        if self.config.image_features:
            self._camera_features(self.config.image_features)
        logger.info("Policy of %s: actions %s.", self.config.url, metadata["action_names"] or metadata["action_dim"])


def _as_uint8(images: Tensor, feature: str) -> np.ndarray:
    """uint8 `(B, height, width, 3)` of pictures `(B, 3, height, width)` in [0, 1]: exactly what the camera gave."""
    low, high = images.aminmax()
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{feature!r} has values from {low:g} to {high:g}, expected pictures in [0, 1].")
    return (images * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


__all__ = ["Nora15Policy"]
