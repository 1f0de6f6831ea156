# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The policy as a model server of allenai's vla-eval, which brings the wire, the chunk buffers and the batches."""

import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import numpy as np

from ..simulation.installation import extra_command

try:
    from vla_eval.model_servers.base import SessionContext
    from vla_eval.model_servers.predict import PredictModelServer
    from vla_eval.model_servers.serve import serve_async
    from vla_eval.specs import (
        IMAGE_RGB,
        LANGUAGE,
        DimSpec,
    )
except ImportError as error:
    raise ImportError(f"vla-eval is not installed. Install it with {extra_command('vla-eval')}.") from error

from ..runtime.listening import is_loopback
from ..simulation.environment import FIRST_EVALUATION_SEED, Observation
from .observation_reader import ObservationReader
from .robots import RobotKeys
from .served_policy import ChunkRequest, ServedPolicy
from .sessions import SessionTable

logger = logging.getLogger(__name__)

Message = Mapping[str, Any]


class VlaEvalServer(PredictModelServer):
    """
    A policy that benchmarks of vla-eval ask, in this process with `vla_eval.evaluate` or over the network with
    `vla-eval run`.

    The noise of an episode is the one of [`~nora15_hf.evaluation.rollout.rollout`]: its seed is the `seed` of vla-eval's task, or
    `first_seed` plus its `episode_idx`.

    Args:
        policy ([`ServedPolicy`]): Who answers; it is warmed up.
        n_action_steps (`int`, *optional*): Actions executed of each chunk; the whole chunk by default.
        first_seed (`int`): Seed of a task's first episode, where the benchmark names none.
        max_batch_size (`int`): Observations that go through the policy at once at most.

    Raises:
        ValueError: `n_action_steps` is not between 1 and the chunk size, or the benchmark's pictures are not the policy's.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        *,
        n_action_steps: int | None = None,
        first_seed: int = FIRST_EVALUATION_SEED,
        max_batch_size: int = 16,
    ):
        self.contract = policy.contract(policy.dataset_key)
        chunk_size = self.contract.chunk_size
        if n_action_steps is not None and not 1 <= n_action_steps <= chunk_size:
            raise ValueError(f"n_action_steps={n_action_steps} must lie between 1 and the chunk size {chunk_size}.")
        super().__init__(chunk_size=n_action_steps or chunk_size, max_batch_size=max_batch_size)
        self.policy = policy
        self.first_seed = first_seed
        self.reader = ObservationReader(self.contract, needs_state=policy.needs_state, robot=self.robot_keys())
        self._sessions = SessionTable(policy.new_seed)
        policy.warm_up()

    def run(self, host: str, port: int, on_ready: Callable[[int], None]) -> None:
        """
        Serves until Ctrl-C or SIGTERM, then closes the connections.

        Args:
            host (`str`), port (`int`): Where to listen. vla-eval knows no key.
            on_ready (`Callable[[int], None]`): Called with the port when clients can connect.
        """

        if not is_loopback(host):
            logger.warning(
                f"Anyone who can reach {host} can use this policy, since vla-eval has no keys. Listen on 127.0.0.1."
            )

        async def serve_until_told() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async with anyio.create_task_group() as tasks:
                    on_ready(await tasks.start(serve_async, self, host, port))
                    await anext(signals)
                    tasks.cancel_scope.cancel()

        anyio.run(serve_until_told)

    def robot_keys(self) -> RobotKeys | None:
        """How the benchmark calls its pictures; `None`: as the policy does."""
        return None

    def shown(self, observation: Observation) -> Observation:
        """What the policy is shown of what the benchmark sends."""
        return observation

    def executed(self, chunk: np.ndarray) -> np.ndarray:
        """A chunk `(H, A)` in the benchmark's units."""
        return chunk

    def get_action_spec(self) -> dict[str, DimSpec]:
        """One component, named by the policy's dimensions."""
        names = ", ".join(self.contract.action_names or ())
        return {"action": DimSpec("action", self.contract.action_dim, "raw", description=names)}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """The policy's cameras, the instruction and, where it is needed, the state."""
        pictures = {path.split("/")[-1]: IMAGE_RGB for path in self.reader.picture_keys.values()}
        state = {"state": DimSpec("state", self.contract.state_dim or 0, "raw")} if self.policy.needs_state else {}
        return {**pictures, "language": LANGUAGE, **state}

    def get_observation_params(self) -> dict[str, Any]:
        """What a benchmark is asked to send besides its first camera."""
        wanted = {"send_wrist_image": len(self.reader.picture_keys) > 1, "send_state": self.policy.needs_state}
        return {name: True for name, needed in wanted.items() if needed}

    async def on_episode_start(self, config: Message, ctx: SessionContext) -> None:
        """Begins an episode with the seed of its task."""
        task = config.get("task", {})
        seed = task.get("seed")
        if seed is None and "episode_idx" in task:
            seed = self.first_seed + task["episode_idx"]
        self._sessions.get(ctx.session_id).begin(seed)
        await super().on_episode_start(config, ctx)

    async def on_episode_end(self, result: Message, ctx: SessionContext) -> None:
        """Forgets the episode."""
        self._sessions.forget(ctx.session_id)
        await super().on_episode_end(result, ctx)

    async def on_observation(self, obs: Message, ctx: SessionContext) -> None:
        """Reads an observation before it joins a batch, so that an invalid one is an error for its own client only."""
        await super().on_observation(self._read(obs), ctx)

    def predict_batch(self, obs_batch: Sequence[Observation], ctx_batch: Sequence[SessionContext]) -> list[dict]:
        """One pass through the policy; see [`PredictModelServer`]."""
        chunks = self.policy.predict(
            [
                ChunkRequest(self.shown(observation), self._sessions.get(ctx.session_id).next_key())
                for observation, ctx in zip(obs_batch, ctx_batch, strict=True)
            ]
        )
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
        return [{"actions": self.executed(chunk)} for chunk in chunks]

    def _read(self, message: Message) -> Observation:
        images = message.get("images", {})
        if self.reader.robot is self.reader.own:
            # A benchmark may show more than the policy was trained on, and call its only camera as it likes.
            names = list(self.contract.cameras or images)
            images = {name: images[name] for name in names if name in images} or images
            pictures = {"image": next(iter(images.values()))} if len(names) == len(images) == 1 else {"images": images}
        else:
            pictures = {"images": images}
        states = [message[key] for key in ("states", "state") if key in message]
        return self.reader.read(
            {**pictures, "prompt": message.get("task_description"), **({"state": states[0]} if states else {})}
        )


__all__ = ["VlaEvalServer"]
