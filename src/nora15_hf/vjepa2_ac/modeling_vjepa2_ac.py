# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""V-JEPA 2-AC: a frozen image encoder and a frame-causal predictor of the next frame's latents."""

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import CommitInfo, HfApi
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder

from .configuration_vjepa2_ac import VJEPA2ACConfig
from .poses import integrate_pose

LayerCache = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one predictor layer, each `(B, heads, frames * tokens per frame, head_dim)`."""

FrameCache = list[LayerCache]
"""One `LayerCache` per predictor layer: all that later frames need to know about earlier ones."""


def normalize_latents(latents: torch.Tensor) -> torch.Tensor:
    """Layer norm without gain and bias over the last dimension, in float32: the space in which latents are compared."""
    return nn.functional.layer_norm(latents.float(), latents.shape[-1:], eps=1e-5)


def rotary_tables(
    config: VJEPA2ACConfig, first_frame: int, num_frames: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Cosines and sines of the predictor's rotary embedding, each float32 `(num_frames * tokens per frame, head_dim)`.

    A head splits into `[frame | row | column | rest]`; the rest keeps angle zero and so stays as it is. Inside an
    axis the frequencies are tiled (angle j uses frequency j mod n) although the turned pairs are adjacent, so that a
    pair mixes two frequencies and absolute frame indices matter: the released weights were trained this way
    (`facebookresearch/vjepa2`, `src/models/utils/modules.py`). Computed from integers at every call, because a buffer
    would follow the model to bfloat16.
    """
    rows, columns = config.grid_size
    condition = config.num_condition_tokens
    positions = torch.zeros(num_frames, condition + rows * columns, 3, device=device)
    positions[..., 0] = torch.arange(first_frame, first_frame + num_frames, device=device)[:, None]
    patches = torch.arange(rows * columns, device=device)
    positions[:, condition:, 1] = patches // columns
    positions[:, condition:, 2] = (patches % columns) * (rows / columns)

    num_frequencies = config.predictor_head_dim // 3 // 2
    exponents = torch.arange(num_frequencies, device=device, dtype=torch.float32) / num_frequencies
    frequencies = (1.0 / 10000**exponents).repeat(2)
    rates = torch.zeros(3, config.predictor_head_dim, device=device)
    for axis in range(3):
        rates[axis, axis * 2 * num_frequencies : (axis + 1) * 2 * num_frequencies] = frequencies
    # Each column of `rates` has one non-zero row, so this sum is exact (a matrix product might run in TF32).
    angles = (positions.flatten(0, 1)[:, :, None] * rates).sum(1)
    return angles.cos(), angles.sin()


def rotate(hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns adjacent pairs of `hidden` (..., tokens, head_dim) by the tables of [`rotary_tables`]."""
    even, odd = hidden.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (hidden * cos + turned * sin).to(hidden.dtype)


def frame_causal_mask(
    num_frames: int, tokens_per_frame: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor | None:
    """
    Additive mask `(1, 1, tokens, tokens)` under which a token sees its own and all earlier frames; `None` for one
    frame, which sees everything. Additive rather than boolean, because eager attention adds it.
    """
    if num_frames == 1:
        return None
    frame = torch.arange(num_frames, device=device).repeat_interleave(tokens_per_frame)
    hidden = frame[:, None] < frame[None, :]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(hidden, torch.finfo(dtype).min)
    return mask[None, None]


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, `(B, heads, tokens, head_dim)` -> `(B, tokens, heads, head_dim)` and its weights."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class VJEPA2ACResidualLinear(nn.Linear):
    """A linear layer whose initial weights shrink with the depth of the block in which it stands."""

    def __init__(self, in_features: int, out_features: int, layer_index: int):
        super().__init__(in_features, out_features)
        self.layer_index = layer_index


class VJEPA2ACAttention(nn.Module):
    """Multi-head attention with rotary positions, over the new tokens and the cached ones before them."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        self.config = config
        self.head_dim = config.predictor_head_dim
        self.qkv = nn.Linear(config.predictor_hidden_size, 3 * config.predictor_hidden_size)
        self.proj = VJEPA2ACResidualLinear(config.predictor_hidden_size, config.predictor_hidden_size, layer_index)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None,
        past: LayerCache | None,
    ) -> tuple[torch.Tensor, LayerCache]:
        qkv = self.qkv(hidden_states).unflatten(-1, (3, -1, self.head_dim))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, _ = attention(
            self, query, key, value, attention_mask, scaling=self.head_dim**-0.5, dropout=0.0, is_causal=False
        )
        return self.proj(attended.flatten(2)), (key, value)


class VJEPA2ACMLP(nn.Module):
    """Feed-forward layer with GELU."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        width = int(config.predictor_hidden_size * config.predictor_mlp_ratio)
        self.fc1 = nn.Linear(config.predictor_hidden_size, width)
        self.fc2 = VJEPA2ACResidualLinear(width, config.predictor_hidden_size, layer_index)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(hidden_states)))


class VJEPA2ACSwiGLU(nn.Module):
    """Gated feed-forward layer; two thirds of the width, so that it has as many parameters as the plain one."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        width = int(config.predictor_hidden_size * config.predictor_mlp_ratio)
        width = 8 * math.ceil(2 * width // 3 / 8)
        self.fc1 = nn.Linear(config.predictor_hidden_size, width)
        # The original shrinks whatever is called `fc2`, also in this variant, where it is the gate.
        self.fc2 = VJEPA2ACResidualLinear(config.predictor_hidden_size, width, layer_index)
        self.fc3 = nn.Linear(width, config.predictor_hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc3(nn.functional.silu(self.fc1(hidden_states)) * self.fc2(hidden_states))


class VJEPA2ACBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block. Returns its keys and values instead of changing a cache that it is given."""

    def __init__(self, config: VJEPA2ACConfig, layer_index: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.predictor_hidden_size, eps=config.predictor_layer_norm_eps)
        self.attn = VJEPA2ACAttention(config, layer_index)
        self.norm2 = nn.LayerNorm(config.predictor_hidden_size, eps=config.predictor_layer_norm_eps)
        self.mlp = (VJEPA2ACSwiGLU if config.predictor_use_swiglu else VJEPA2ACMLP)(config, layer_index)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None,
        past: LayerCache | None,
    ) -> tuple[torch.Tensor, LayerCache]:
        attended, present = self.attn(self.norm1(hidden_states), rotary, attention_mask, past)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.norm2(hidden_states)), present


class VJEPA2ACPredictor(nn.Module):
    """
    Frame-causal transformer over `[action, state, (camera,) patches]` of each frame. What it puts out at the patches
    of frame t is its prediction of frame t + 1 (V-JEPA 2 paper, arXiv 2506.09985, section 3; parameter names of the
    released checkpoint).
    """

    def __init__(self, config: VJEPA2ACConfig):
        super().__init__()
        self.config = config
        width = config.predictor_hidden_size
        self.predictor_embed = nn.Linear(config.encoder_config.hidden_size, width)
        self.action_encoder = nn.Linear(config.action_dim, width)
        self.state_encoder = nn.Linear(config.state_dim, width)
        self.extrinsics_encoder = nn.Linear(config.extrinsics_dim, width)
        self.predictor_blocks = nn.ModuleList(
            VJEPA2ACBlock(config, index) for index in range(config.predictor_num_hidden_layers)
        )
        self.predictor_norm = nn.LayerNorm(width, eps=config.predictor_layer_norm_eps)
        self.predictor_proj = nn.Linear(width, config.encoder_config.hidden_size)
        if not config.use_extrinsics:
            # Part of every released checkpoint, but without gradient: distributed training would wait for it.
            self.extrinsics_encoder.requires_grad_(False)

    def forward(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor,
        extrinsics: torch.Tensor | None = None,
        past: FrameCache | None = None,
        return_cache: bool = False,
    ) -> tuple[torch.Tensor, FrameCache | None]:
        """
        Args:
            latents (`torch.Tensor` of shape `(B, T, P, D)`):
                Layer-normed latents of T frames.
            actions (`torch.Tensor` of shape `(B, T, A)`), states (`torch.Tensor` of shape `(B, T, S)`):
                What is done, and where the robot is, at each of these frames.
            extrinsics (`torch.Tensor` of shape `(B, T, E)`, *optional*):
                The camera's pose; with `config.use_extrinsics` only.
            past (`FrameCache`, *optional*):
                Cache of the frames before; T new frames after a cache must be one frame.
            return_cache (`bool`, *optional*, defaults to `False`):
                Whether to return the cache of all frames so far (keeps keys and values in memory).

        Returns:
            `(torch.Tensor of shape (B, T, P, D), FrameCache or None)`: predictions of the frames after each, **not**
            layer-normed, and the cache.
        """
        dtype = self.predictor_embed.weight.dtype
        tokens = [self.action_encoder(actions.to(dtype)), self.state_encoder(states.to(dtype))]
        if self.config.use_extrinsics:
            tokens.append(self.extrinsics_encoder(extrinsics.to(dtype)))
        embedded = self.predictor_embed(latents.to(dtype))
        hidden = torch.cat([torch.stack(tokens, dim=2), embedded], dim=2)
        num_frames, tokens_per_frame = hidden.shape[1:3]
        if past is not None and num_frames != 1:
            raise ValueError(
                f"`latents` holds {num_frames} frames after a cache; feed the frames after a cache singly."
            )

        first_frame = 0 if past is None else past[0][0].shape[2] // tokens_per_frame
        rotary = None
        if self.config.predictor_use_rope:
            rotary = rotary_tables(self.config, first_frame, num_frames, hidden.device)
        mask = frame_causal_mask(num_frames, tokens_per_frame, hidden.dtype, hidden.device)
        hidden = hidden.flatten(1, 2)
        cache: FrameCache | None = [] if return_cache else None
        for index, block in enumerate(self.predictor_blocks):
            hidden, present = block(hidden, rotary, mask, None if past is None else past[index])
            if return_cache:
                cache.append(present)
        patches = hidden.unflatten(1, (num_frames, tokens_per_frame))[:, :, self.config.num_condition_tokens :]
        return self.predictor_proj(self.predictor_norm(patches)), cache


class VJEPA2ACPreTrainedModel(PreTrainedModel):
    """Facts that transformers asks for, initial weights, and loading that refuses an incomplete checkpoint."""

    config_class = VJEPA2ACConfig
    base_model_prefix = "model"
    main_input_name = "latents"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VJEPA2Layer", "VJEPA2ACBlock"]
    _supports_sdpa = True
    # The frame-causal mask is not one that flash attention can express.
    _supports_flash_attn = False

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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, output_loading_info: bool = False, **kwargs):
        """
        As [`~transformers.PreTrainedModel.from_pretrained`], but strict: a checkpoint that lacks a weight, holds one
        that the model does not know, or one of another shape raises instead of being completed with random numbers.

        Raises:
            ValueError: The checkpoint's weights are not exactly the model's; the message lists the difference.
        """
        # Otherwise transformers falls back to a pickle when there is no safetensors file.
        kwargs["use_safetensors"] = True
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        problems = [
            f"{len(info[kind])} {kind.replace('_', ' ')}: {sorted(map(str, info[kind]))[:8]}"
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if info[kind]
        ]
        if problems:
            raise ValueError(
                f"The weights in {pretrained_model_name_or_path!r} do not fit {cls.__name__}: {'; '.join(problems)}. "
                "Check that config.json belongs to these weights; an original checkpoint (keys with `module.` or "
                "`backbone.`) has to be converted first."
            )
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, with_code: bool = False, **kwargs
    ) -> None:
        """
        As [`~transformers.PreTrainedModel.save_pretrained`].

        `with_code=True` also writes the modules that define the model, and `auto_map`, so that
        `AutoModel.from_pretrained(..., trust_remote_code=True)` works without this package.
        """
        if is_main_process:
            # transformers' flag for code that goes along; that of the class is set when it came from a repo itself.
            self._auto_class = "AutoModel" if with_code else type(self)._auto_class
            self.config._auto_class = "AutoConfig" if with_code else type(self.config)._auto_class
            vars(self.config).pop("auto_map", None)
            if with_code:
                Path(save_directory).mkdir(parents=True, exist_ok=True)
                custom_object_save(self, save_directory, config=self.config)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "50GB",
        with_code: bool = False,
    ) -> CommitInfo:
        """
        As [`~transformers.PreTrainedModel.push_to_hub`], in one commit that also removes weights which earlier pushes
        were split into: left in the repo, an old `model.safetensors` would be loaded instead of new shards. `with_code`
        as in `save_pretrained`.
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size, with_code=with_code)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                delete_patterns=["model*.safetensors", "model.safetensors.index.json"],
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
        super().__init__(config)
        if config.encoder_config._attn_implementation is None:
            # The encoder alone is no PreTrainedModel, which would have chosen for itself.
            config.encoder_config._attn_implementation = config._attn_implementation
        self.encoder = VJEPA2Encoder(config.encoder_config)
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
            ValueError: Another shape, or a `config.grid_size` that is not the encoder's.
        """
        size, channels = self.config.encoder_config.crop_size, self.config.encoder_config.in_chans
        if pixel_values.ndim != 5 or pixel_values.shape[2:] != (channels, size, size):
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}, expected (batch, frames, {channels}, {size}, "
                f"{size}). Make it with this model's VJEPA2ACProcessor."
            )
        if self.config.grid_size != self.config.encoder_grid_size:
            raise ValueError(
                f"This model predicts on a grid of {self.config.grid_size} patches, but its encoder makes "
                f"{self.config.encoder_grid_size}. Feed latents of the encoder that the predictor was trained with, "
                "or load a checkpoint whose two halves match."
            )
        batch, frames = pixel_values.shape[:2]
        hidden = self.encoder(pixel_values.flatten(0, 1)[:, None]).last_hidden_state
        return normalize_latents(hidden).unflatten(0, (batch, frames))

    def forward(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Next-frame predictions for every frame of a clip, each from the frames up to it (teacher forcing).

        Args:
            latents (`torch.Tensor` of shape `(B, T, P, D)`):
                From [`~VJEPA2ACModel.encode`].
            actions (`torch.Tensor` of shape `(B, T, A)`):
                The action taken at each frame.
            states (`torch.Tensor` of shape `(B, T, S)`, *optional*):
                Robot states. Zeros when absent in the `"normalized"` convention; required in the `"metric"` one.
            extrinsics (`torch.Tensor` of shape `(B, T, E)`, *optional*):
                Camera poses; required with, and only accepted with, `config.use_extrinsics`.

        Returns:
            `torch.Tensor` of shape `(B, T, P, D)`: at t the prediction of frame t + 1, as the network gives it. It is
            comparable with latents only after `normalize_latents`.

        Raises:
            ValueError: A shape that does not fit, missing states or extrinsics.
        """
        states = self.check_inputs(latents, actions, states, extrinsics)
        return self.predictor(latents, actions, states, extrinsics)[0]

    def rollout(
        self,
        latents: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor | None = None,
        context_actions: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Imagines what follows the last given frame, feeding each prediction back. Keys and values of past frames are
        cached, which is exact because attention is frame-causal. All given actions are used; the released NORA-1.5
        labels ignored the last of five, so pass `actions[..., :4, :]` to reproduce them.

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

        Returns:
            `torch.Tensor` of shape `(B, steps, P, D)` or `(B, N, steps, P, D)`, float32, layer-normed.

        Raises:
            ValueError: A shape that does not fit, or a missing or superfluous argument.
        """
        metric = self.config.action_convention == "metric"
        if actions.ndim not in (3, 4):
            raise ValueError(
                f"`actions` has shape {tuple(actions.shape)}, expected (batch, steps, action_dim) or (batch, "
                "candidates, steps, action_dim)."
            )
        if states is not None and not metric:
            raise ValueError(
                "`states` was given, but config.action_convention is 'normalized', in which imagined states are zeros. "
                "Leave it out, or use a model of the 'metric' convention."
            )
        candidates = actions if actions.ndim == 4 else actions[:, None]
        num_candidates, num_steps = candidates.shape[1:3]
        num_context = latents.shape[1] - 1
        if (0 if context_actions is None else context_actions.shape[1]) != num_context:
            found = "none" if context_actions is None else f"shape {tuple(context_actions.shape)}"
            raise ValueError(
                f"`latents` holds {num_context + 1} frames, so `context_actions` must hold the {num_context} actions "
                f"between them as (batch, {num_context}, {self.config.action_dim}); found {found}."
            )
        if num_steps < 1 or num_candidates < 1:
            raise ValueError(f"`actions` has shape {tuple(actions.shape)}: nothing to imagine.")

        seen_actions = candidates[:, 0, :1]
        if context_actions is not None:
            seen_actions = torch.cat([context_actions, seen_actions], dim=1)
        if extrinsics is not None:
            extrinsics = extrinsics[:, None].expand(-1, num_context + 1, -1)
        states = self.check_inputs(latents, seen_actions, states, extrinsics)

        cache = None
        if num_context:
            past_extrinsics = None if extrinsics is None else extrinsics[:, :-1]
            _, cache = self.predictor(
                latents[:, :-1], context_actions, states[:, :-1], past_extrinsics, return_cache=True
            )
            cache = [tuple(each.repeat_interleave(num_candidates, dim=0) for each in layer) for layer in cache]
        frame, state = (each[:, -1:].repeat_interleave(num_candidates, dim=0) for each in (latents, states))
        if extrinsics is not None:
            extrinsics = extrinsics[:, -1:].repeat_interleave(num_candidates, dim=0)
        imagined = []
        for action in candidates.flatten(0, 1).split(1, dim=1):
            prediction, cache = self.predictor(frame, action, state, extrinsics, past=cache, return_cache=True)
            frame = normalize_latents(prediction)
            imagined.append(frame)
            if metric:
                state = integrate_pose(state, action)
        rolled = torch.cat(imagined, dim=1)
        return rolled.unflatten(0, candidates.shape[:2]) if actions.ndim == 4 else rolled

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
            ValueError: Shapes that do not fit.
        """
        goal = goal_latents[:, -1] if goal_latents.ndim == 4 else goal_latents
        expected = (rollout_latents.shape[0], *rollout_latents.shape[-2:])
        if rollout_latents.ndim not in (4, 5) or goal.shape != expected:
            raise ValueError(
                f"`goal_latents` has shape {tuple(goal_latents.shape)} and `rollout_latents` "
                f"{tuple(rollout_latents.shape)}; expected (B, P, D) or (B, T, P, D) beside (B, steps, P, D) or "
                "(B, N, steps, P, D), with equal B, P and D."
            )
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
        if latents.ndim != 4 or latents.shape[2:] != frame_shape:
            raise ValueError(
                f"`latents` has shape {tuple(latents.shape)}, expected (batch, frames, {frame_shape[0]} patches, "
                f"{frame_shape[1]}). Make them with this model's `encode`."
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
                f"{config.use_extrinsics}. Give it exactly when the model reads it."
            )
        expected = (*latents.shape[:2], config.extrinsics_dim)
        if extrinsics is not None and extrinsics.shape != expected:
            raise ValueError(f"`extrinsics` has shape {tuple(extrinsics.shape)}, expected {expected}.")
        return states


__all__ = [
    "FrameCache",
    "VJEPA2ACModel",
    "VJEPA2ACPreTrainedModel",
    "VJEPA2ACPredictor",
    "frame_causal_mask",
    "normalize_latents",
    "rotary_tables",
    "rotate",
]
