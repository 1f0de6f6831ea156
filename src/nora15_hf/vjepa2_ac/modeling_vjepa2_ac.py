# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""V-JEPA 2-AC: a frozen image encoder and a frame-causal predictor of the next frame's latents."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder
from transformers.utils import can_return_tuple

from ..repo_files.flat_code import write_code
from ..repo_files.one_commit import OneCommitPushMixin
from ..repo_files.strict_loading import StrictLoadingMixin
from ..runtime.recorded_outputs import Recorded, recorded_outputs
from .attention_vjepa2_ac import VJEPA2ACResidualLinear
from .buffered_frames import BufferedFramePredictor, can_be_read, encode_frames, rows_at_once
from .configuration_vjepa2_ac import VJEPA2ACConfig
from .poses import integrate_pose
from .predictor_vjepa2_ac import FramePredictor, VJEPA2ACPredictor


@dataclass
class VJEPA2ACOutput(ModelOutput):
    """
    Output of [`VJEPA2ACModel`]: predictions, or with `auto_steps` the losses of clips and the latents they compare.

    Args:
        loss (`torch.Tensor`, scalar, *optional*): Sum of the two terms.
        teacher_forcing_loss, autoregressive_loss (`torch.Tensor`, scalars, *optional*): The terms.
        predicted_latents (`torch.Tensor` of shape `(B, T, P, D)`, *optional*, returned without `auto_steps`):
            At t the prediction of frame t + 1, as the network gives it. It is comparable with latents only after
            `normalize_latents`.
        teacher_forced_latents (`torch.Tensor` of shape `(B, T - 1, P, D)`, *optional*):
            Predictions of frames 1 ... T - 1, layer-normed.
        imagined_latents (`torch.Tensor` of shape `(B, auto_steps, P, D)`, *optional*):
            Imagined frames 1 ... auto_steps, layer-normed.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*, returned with `output_hidden_states`):
            Input of the predictor's first block and output of each, `(B, T * tokens per frame, predictor_hidden_size)`; with
            `auto_steps`, T - 1 frames of the teacher-forcing pass.
        attentions (`tuple[torch.Tensor, ...]`, *optional*, returned with `output_attentions`):
            Weights of each block, `(B, heads, tokens, tokens)` of the same tokens; 0 on later frames.
    """

    loss: torch.Tensor | None = None
    teacher_forcing_loss: torch.Tensor | None = None
    autoregressive_loss: torch.Tensor | None = None
    predicted_latents: torch.Tensor | None = None
    teacher_forced_latents: torch.Tensor | None = None
    imagined_latents: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def normalize_latents(latents: torch.Tensor) -> torch.Tensor:
    """Layer norm without gain and bias over the last dimension, in float32: the space in which latents are compared."""
    return nn.functional.layer_norm(latents.float(), latents.shape[-1:], eps=1e-5)


def check_finite(name: str, values: torch.Tensor) -> None:
    """Refuses NaN and infinity, which a mean over thousands of latents would carry into every reward."""
    if not values.isfinite().all():
        first = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"`{name}` holds NaN or infinity, first at index {first} of shape {tuple(values.shape)}. Check the recording or "
            "the policy that it comes from."
        )


class VJEPA2ACPreTrainedModel(StrictLoadingMixin, OneCommitPushMixin, PreTrainedModel):
    """The attributes that transformers expects, initial weights, and loading that refuses an incomplete checkpoint."""

    config_class = VJEPA2ACConfig
    base_model_prefix = "model"
    main_input_name = "latents"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VJEPA2Layer", "VJEPA2ACBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Truncated normal weights, zero biases; the layers that write to the residual stream shrink with depth."""
        super()._init_weights(module)
        std = self.config.initializer_range
        # Only modules with parameters of their own arrive here: transformers skips the containers of code outside of it.
        if isinstance(module, VJEPA2ACResidualLinear):
            if self.config.predictor_identity_init:
                init.zeros_(module.weight)
            else:
                init.trunc_normal_(module.weight, std=std / math.sqrt(2 * (module.layer_index + 1)))
        elif self.config.predictor_identity_init and module is self.predictor.predictor_embed:
            init.copy_(module.weight, torch.eye(*module.weight.shape))
        elif self.config.predictor_identity_init and module is self.predictor.predictor_proj:
            # Latents are layer-normed; between embedding and projection, padding and final norm rescaled them.
            latent_width, width = module.weight.shape
            init.copy_(module.weight, torch.eye(latent_width, width) * math.sqrt(latent_width / width))
        elif isinstance(module, (nn.Linear, nn.Conv3d)):
            init.trunc_normal_(module.weight, std=std)

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, with_code: bool = False, **kwargs
    ) -> None:
        """
        As [`~transformers.PreTrainedModel.save_pretrained`].

        `with_code=True` also writes the modules that define the model, and `auto_map`, so that
        `AutoModel.from_pretrained(..., trust_remote_code=True)` works without this package.
        """
        if is_main_process:
            vars(self.config).pop("auto_map", None)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if with_code and is_main_process:
            write_code(
                Path(save_directory), {"config.json": {"AutoConfig": type(self.config), "AutoModel": type(self)}}
            )


class VJEPA2ACModel(VJEPA2ACPreTrainedModel):
    """
    The world model: transformers' V-JEPA 2 encoder under `encoder.` and the action-conditioned predictor under
    `predictor.`.

    Example:

    ```python
    >>> import torch
    >>> from nora15_hf.vjepa2_ac import tiny_world_model

    >>> model, processor = tiny_world_model(action_dim=4)
    >>> frames = torch.randint(0, 256, (2, 1, 84, 84, 3), dtype=torch.uint8)
    >>> with torch.no_grad():
    ...     now = model.encode(**processor(frames))
    ...     imagined = model.rollout(now, torch.zeros(2, 5, 3, 4))
    >>> imagined.shape  # 2 states, 5 candidates, 3 steps, 36 patches, 128 dimensions
    torch.Size([2, 5, 3, 36, 128])
    >>> model.goal_energy(imagined, now).shape
    torch.Size([2, 5])
    ```
    """

    def __init__(self, config: VJEPA2ACConfig):
        requested = config._attn_implementation
        super().__init__(config)
        if config.encoder_config._attn_implementation in (None, requested):
            # The encoder alone is no PreTrainedModel, which would have checked it, or replaced it by an available kernel.
            config.encoder_config._attn_implementation = config._attn_implementation
        self.encoder = VJEPA2Encoder(config.encoder_config)
        # The layers keep this size; the configuration may be changed later.
        self._built_grid_size = config.encoder_grid_size
        self.predictor = VJEPA2ACPredictor(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embeddings.patch_embeddings

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Latents of images, each encoded alone (repeated to fill a tubelet, as V-JEPA 2-AC does).

        Args:
            pixel_values (`torch.Tensor` of shape `(B, T, 3, crop_size, crop_size)`):
                From [`VJEPA2ACProcessor`].

        Returns:
            `torch.Tensor` of shape `(B, T, P, D)`, float32, layer-normed. Differentiable: wrap it in
            `torch.no_grad()` unless the encoder is being trained.

        Raises:
            ValueError: Another shape, a `config.grid_size` that is not the encoder's, or a configuration that was changed after
                the model had been made of it.
        """
        size, channels = self.config.encoder_config.crop_size, self.config.encoder_config.in_chans
        if pixel_values.ndim != 5 or pixel_values.shape[2:] != (channels, size, size):
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}, expected (batch, frames, {channels}, {size}, "
                f"{size}). Make it with this model's VJEPA2ACProcessor."
            )
        if self.config.encoder_grid_size != self._built_grid_size:
            raise ValueError(
                f"config.encoder_config has crop_size={size} and patch_size={self.config.encoder_config.patch_size}, which make "
                f"{self.config.encoder_grid_size} patches, but the encoder was built for {self._built_grid_size}: its layers "
                "would confuse the positions of patches. Set them before the model is made, as in from_pretrained(..., config=config)."
            )
        if self.config.grid_size != self.config.encoder_grid_size:
            raise ValueError(
                f"This model predicts on a grid of {self.config.grid_size} patches, but its encoder produces "
                f"{self.config.encoder_grid_size}. Pass latents of the encoder that the predictor was trained with, "
                "or load a checkpoint whose two halves match."
            )
        images = pixel_values.flatten(0, 1)[:, None]
        if can_be_read(self.encoder, VJEPA2Encoder):
            hidden = encode_frames(self.encoder, images)
        else:
            hidden = self.encoder(images).last_hidden_state
        return normalize_latents(hidden).unflatten(0, pixel_values.shape[:2])

    @can_return_tuple
    def forward(
        self,
        latents: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
        auto_steps: int | None = None,
        loss_exponent: float = 1.0,
        pixel_values: torch.Tensor | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> VJEPA2ACOutput:
        """
        Next-frame predictions for every frame of a clip, each from the frames up to it (teacher forcing).

        Args:
            latents (`torch.Tensor` of shape `(B, T, P, D)`, *optional*):
                From [`~VJEPA2ACModel.encode`].
            actions (`torch.Tensor` of shape `(B, T, A)`):
                The action taken at each frame; with `auto_steps` `(B, T - 1, A)`, between the frames.
            states (`torch.Tensor` of shape `(B, T, S)`, *optional*):
                Robot states. Zeros when absent in the `"normalized"` convention; required in the `"metric"` one.
            extrinsics (`torch.Tensor` of shape `(B, T, E)`, *optional*):
                Camera poses; required with, and only accepted with, `config.use_extrinsics`.
            auto_steps (`int`, *optional*), loss_exponent (`float`, *optional*, defaults to 1.0):
                With `auto_steps` the losses of whole clips are returned, see [`~VJEPA2ACModel.clip_losses`]; distributed
                training needs them to come out of `forward`.
            pixel_values (`torch.Tensor` of shape `(B, T, 3, crop_size, crop_size)`, *optional*):
                From [`VJEPA2ACProcessor`], instead of `latents`; the gradient then reaches the encoder.
            output_hidden_states (`bool`, `int` or `list[int]`, *optional*), output_attentions (`bool`, *optional*):
                What else to return; default: as the configuration says. With numbers, only those hidden states are kept, and
                None stands for the others. With `output_attentions` attention is computed eagerly.
            return_dict (`bool`, *optional*): False for a tuple of what is not None.

        Returns:
            [`VJEPA2ACOutput`]

        Raises:
            ValueError: A shape that does not fit, missing actions, states or extrinsics, latents beside pixel_values.
        """
        if actions is None or (latents is None) == (pixel_values is None):
            raise ValueError("forward() needs `actions`, and either `latents` or `pixel_values`.")
        if latents is None:
            latents = self.encode(pixel_values)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        recorded = {
            name: []
            for name, wanted in (("hidden_states", output_hidden_states), ("attentions", output_attentions))
            if wanted
        }
        if auto_steps is not None:
            output = self.clip_losses(latents, actions, states, extrinsics, auto_steps, loss_exponent, recorded)
        else:
            states = self.check_inputs(latents, actions, states, extrinsics)
            predicted, _ = self.predictor(latents, actions, states, extrinsics, recorded=recorded)
            output = VJEPA2ACOutput(predicted_latents=predicted)
        for name, tensors in recorded_outputs(recorded, output_hidden_states).items():
            output[name] = tensors
        return output

    def clip_losses(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
        auto_steps: int = 2,
        loss_exponent: float = 1.0,
        recorded: Recorded | None = None,
    ) -> VJEPA2ACOutput:
        """
        Teacher-forcing and autoregressive loss on layer-normed latents (V-JEPA 2 paper, arXiv 2506.09985, Eq. 2-4; no
        gradient is stopped). The autoregressive pass starts from the teacher-forcing pass's keys and values of frame
        0, which are the same numbers: one frame less to compute.

        Args:
            latents (`torch.Tensor` of shape `(B, T, P, D)`): Layer-normed latents of clips.
            actions (`torch.Tensor` of shape `(B, T - 1, A)`): Actions between the frames.
            states (`torch.Tensor` of shape `(B, T, S)`, *optional*): Poses; zeros when absent.
            extrinsics (`torch.Tensor` of shape `(B, T, E)`, *optional*): Camera poses, with `config.use_extrinsics`.
            auto_steps (`int`, *optional*, defaults to 2): Frames that the autoregressive pass imagines, below T.
            loss_exponent (`float`, *optional*, defaults to 1.0): Exponent p of mean(|difference|^p) / p.
            recorded: As in [`VJEPA2ACPredictor`], of the teacher-forcing pass.

        Raises:
            ValueError: `auto_steps` of T or more; shapes that do not fit; missing states in the metric convention.
        """
        if not 1 <= auto_steps < latents.shape[1]:
            raise ValueError(
                f"`auto_steps`={auto_steps}, but clips of {latents.shape[1]} frames have {latents.shape[1] - 1} frames "
                "to imagine. Lower auto_steps or use longer clips."
            )
        for name, values in {"states": states, "extrinsics": extrinsics}.items():
            if values is not None and values.shape[:2] != latents.shape[:2]:
                raise ValueError(
                    f"`{name}` has shape {tuple(values.shape)}, expected {tuple(latents.shape[:2])} in front: one row for "
                    "each frame of a clip, the last included."
                )
        states, extrinsics = (None if each is None else each[:, :-1] for each in (states, extrinsics))
        states = self.check_inputs(latents[:, :-1], actions, states, extrinsics)
        predictions, cache = self.predictor(
            latents[:, :-1], actions, states, extrinsics, return_cache=True, recorded=recorded
        )
        teacher_forced = normalize_latents(predictions)

        frame_tokens = self.config.num_condition_tokens + self.config.num_patches
        cache = [(keys[:, :, :frame_tokens], values[:, :, :frame_tokens]) for keys, values in cache]
        imagined = [teacher_forced[:, :1]]
        for step in range(1, auto_steps):
            now = slice(step, step + 1)
            camera = None if extrinsics is None else extrinsics[:, now]
            prediction, cache = self.predictor(
                imagined[-1], actions[:, now], states[:, now], camera, past=cache, return_cache=True
            )
            imagined.append(normalize_latents(prediction))
        imagined = torch.cat(imagined, dim=1)

        def distance(predicted: torch.Tensor) -> torch.Tensor:
            difference = predicted - latents[:, 1 : 1 + predicted.shape[1]]
            return difference.abs().pow(loss_exponent).mean() / loss_exponent

        teacher_forcing, autoregressive = distance(teacher_forced), distance(imagined)
        return VJEPA2ACOutput(
            loss=teacher_forcing + autoregressive,
            teacher_forcing_loss=teacher_forcing,
            autoregressive_loss=autoregressive,
            teacher_forced_latents=teacher_forced,
            imagined_latents=imagined,
        )

    def rollout(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor | None = None,
        context_actions: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
        batch_size: int | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        """
        Imagines what follows the last given frame, feeding each prediction back. Keys and values of past frames are
        cached, which is exact because attention is frame-causal: the numbers are those of [`~VJEPA2ACModel.forward`] on the
        whole clip, up to rounding. All given actions are used; the released NORA-1.5 labels ignored the last of five, so
        pass `actions[..., :4, :]` to reproduce them.

        Args:
            latents (`torch.Tensor` of shape `(B, T, P, D)`):
                Frames seen so far, T = 1 in NORA-1.5. Their keys and values are shared by the candidates.
            actions (`torch.Tensor` of shape `(B, steps, A)` or `(B, N, steps, A)`):
                Actions from the last frame on; N candidates per state.
            states (`torch.Tensor` of shape `(B, T, S)`, *optional*):
                Poses at the given frames in the `"metric"` convention, integrated from then on. The `"normalized"`
                convention imagines with zero states and refuses others.
            context_actions (`torch.Tensor` of shape `(B, T - 1, A)`, *optional*):
                The actions between the given frames; required when T > 1.
            extrinsics (`torch.Tensor` of shape `(B, E)`, *optional*):
                Pose of the camera, which stands still; with `config.use_extrinsics`.
            batch_size (`int`, *optional*):
                How many of the B * N futures are imagined at once; bounds the memory for keys and values. Default: all
                on an accelerator, on a CPU as many as its caches hold.
            last_only (`bool`, *optional*, defaults to `False`):
                Whether to keep only the last imagined frame, all that [`~VJEPA2ACModel.goal_energy`] reads.

        Returns:
            `torch.Tensor` of shape `(B, steps, P, D)` or `(B, N, steps, P, D)`, float32, layer-normed; with `last_only`
            `steps` is 1.

        Raises:
            ValueError: A shape that does not fit, a missing or superfluous argument, NaN or infinity.
        """
        if actions.ndim not in (3, 4):
            raise ValueError(
                f"`actions` has shape {tuple(actions.shape)}, expected (batch, steps, action_dim) or (batch, "
                "candidates, steps, action_dim)."
            )
        if states is not None and self.config.action_convention != "metric":
            raise ValueError(
                "`states` was given, but config.action_convention is 'normalized', in which imagined states are zeros. "
                "Omit it, or use a model of the 'metric' convention."
            )
        candidates = actions if actions.ndim == 4 else actions[:, None]
        num_candidates, num_steps = candidates.shape[1:3]
        num_context = latents.shape[1] - 1
        expected = (latents.shape[0], num_context, self.config.action_dim)
        if (num_context > 0) if context_actions is None else (context_actions.shape != expected):
            found = "none" if context_actions is None else f"shape {tuple(context_actions.shape)}"
            raise ValueError(
                f"`latents` holds {num_context + 1} frames, so `context_actions` must hold the {num_context} actions "
                f"between them as (batch, {num_context}, {self.config.action_dim}); found {found}."
            )
        if num_steps < 1 or num_candidates < 1:
            raise ValueError(f"`actions` has shape {tuple(actions.shape)}: nothing to imagine.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"`batch_size`={batch_size} must be at least 1.")

        seen_actions = candidates[:, 0, :1]
        if context_actions is not None:
            seen_actions = torch.cat([context_actions, seen_actions], dim=1)
        if extrinsics is not None:
            extrinsics = extrinsics[:, None].expand(-1, num_context + 1, -1)
        states = self.check_inputs(latents, seen_actions, states, extrinsics)

        for name, values in {"latents": latents, "actions": actions, "states": states}.items():
            check_finite(name, values)
        if context_actions is not None:
            check_finite("context_actions", context_actions)

        context = None
        if num_context:
            past_extrinsics = None if extrinsics is None else extrinsics[:, :-1]
            _, context = self.predictor(
                latents[:, :-1], context_actions, states[:, :-1], past_extrinsics, return_cache=True
            )
        futures = candidates.flatten(0, 1)
        if batch_size is None:
            on_cpu = latents.device.type == "cpu"
            batch_size = rows_at_once(self.config.tokens_per_frame) if on_cpu else len(futures)
        if can_be_read(self.predictor, VJEPA2ACPredictor):
            rows = min(batch_size, len(futures))
            predict = BufferedFramePredictor(self.predictor, rows, num_context + num_steps)
        else:
            predict = FramePredictor(self.predictor)
        state_of_future = torch.arange(len(latents), device=latents.device).repeat_interleave(num_candidates)
        num_kept = 1 if last_only else num_steps
        rolled = latents.new_empty(len(futures), num_kept, *latents.shape[2:], dtype=torch.float32)
        for first in range(0, len(futures), batch_size):
            part = slice(first, first + batch_size)
            rows = state_of_future[part]
            predict.start(None if context is None else [(keys[rows], values[rows]) for keys, values in context])
            camera = None if extrinsics is None else extrinsics[rows, -1:]
            self._imagine(predict, latents[rows, -1:], futures[part], states[rows, -1:], camera, rolled[part])
        return rolled.unflatten(0, candidates.shape[:2]) if actions.ndim == 4 else rolled

    def _imagine(
        self,
        predict: FramePredictor | BufferedFramePredictor,
        frame: torch.Tensor,
        actions: torch.Tensor,
        state: torch.Tensor,
        extrinsics: torch.Tensor | None,
        imagined: torch.Tensor,
    ) -> None:
        """Writes the last frames of one future for each of R frames and chunks of actions into `imagined` `(R, T, P, D)`."""
        first_kept = actions.shape[1] - imagined.shape[1]
        for step, action in enumerate(actions.split(1, dim=1)):
            frame = normalize_latents(predict(frame, action, state, extrinsics))
            if step >= first_kept:
                imagined[:, step - first_kept] = frame[:, 0]
            if self.config.action_convention == "metric":
                state = integrate_pose(state, action)

    def goal_energy(self, rollout_latents: torch.Tensor, goal_latents: torch.Tensor) -> torch.Tensor:
        """
        Distance of the last imagined frame from the goal: mean absolute difference over patches and dimensions, in
        float32; lower is better (V-JEPA 2 paper, section 3; NORA-1.5 reward).

        Args:
            rollout_latents (`torch.Tensor` of shape `(B, steps, P, D)` or `(B, N, steps, P, D)`):
                From [`~VJEPA2ACModel.rollout`].
            goal_latents (`torch.Tensor` of shape `(B, P, D)`, or `(B, T, P, D)` whose last frame is the goal):
                From [`~VJEPA2ACModel.encode`].

        Returns:
            `torch.Tensor` of shape `(B,)` or `(B, N)`.

        Raises:
            ValueError: Shapes that do not fit; NaN or infinity in the goal or in the last imagined frame.
        """
        goal = goal_latents[:, -1] if goal_latents.ndim == 4 else goal_latents
        expected = (rollout_latents.shape[0], *rollout_latents.shape[-2:])
        if rollout_latents.ndim not in (4, 5) or goal.shape != expected:
            raise ValueError(
                f"`goal_latents` has shape {tuple(goal_latents.shape)} and `rollout_latents` "
                f"{tuple(rollout_latents.shape)}; expected (B, P, D) or (B, T, P, D) beside (B, steps, P, D) or "
                "(B, N, steps, P, D), with equal B, P and D."
            )
        check_finite("goal_latents", goal)
        check_finite("rollout_latents", rollout_latents[..., -1, :, :])
        if rollout_latents.ndim == 5:
            goal = goal[:, None]
        return (rollout_latents[..., -1, :, :].float() - goal.float()).abs().mean(dim=(-2, -1))

    def check_inputs(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Refuses arguments of [`~VJEPA2ACModel.forward`] that do not fit and returns the states to use, `(B, T, S)`.

        Raises:
            ValueError: Names the argument, what was found and what was expected.
        """
        config = self.config
        frame_shape = (config.num_patches, config.encoder_config.hidden_size)
        if latents.ndim != 4 or latents.shape[2:] != frame_shape or 0 in latents.shape:
            raise ValueError(
                f"`latents` has shape {tuple(latents.shape)}, expected (batch, frames, {frame_shape[0]} patches, "
                f"{frame_shape[1]}) with at least one frame. Make them with this model's `encode`."
            )
        expected = (*latents.shape[:2], config.action_dim)
        if actions.shape != expected:
            raise ValueError(
                f"`actions` has shape {tuple(actions.shape)}, expected {expected}: one action of {config.action_dim} "
                "dimensions per frame."
            )
        if states is None:
            if config.action_convention == "metric":
                raise ValueError(
                    "`states` is missing: a model of the 'metric' action convention needs the robot's pose at each "
                    f"frame, (batch, frames, {config.state_dim})."
                )
            states = latents.new_zeros(*latents.shape[:2], config.state_dim)
        expected = (*latents.shape[:2], config.state_dim)
        if states.shape != expected:
            raise ValueError(f"`states` has shape {tuple(states.shape)}, expected {expected}.")
        if (extrinsics is not None) != config.use_extrinsics:
            raise ValueError(
                f"`extrinsics` was {'given' if extrinsics is not None else 'not given'}, but config.use_extrinsics is "
                f"{config.use_extrinsics}. Pass it if and only if the model reads it."
            )
        expected = (*latents.shape[:2], config.extrinsics_dim)
        if extrinsics is not None and extrinsics.shape != expected:
            raise ValueError(f"`extrinsics` has shape {tuple(extrinsics.shape)}, expected {expected}.")
        return states


__all__ = [
    "VJEPA2ACModel",
    "VJEPA2ACOutput",
    "VJEPA2ACPreTrainedModel",
    "normalize_latents",
]
