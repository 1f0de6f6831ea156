# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Configuration of V-JEPA 2-AC: a V-JEPA 2 image encoder and an action-conditioned next-frame predictor."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, VJEPA2Config
from transformers.configuration_utils import SubConfigSpec


@strict
class VJEPA2ACConfig(PreTrainedConfig):
    r"""
    Configuration of [`VJEPA2ACModel`]. The defaults are the released `vjepa2_ac_vit_giant` (1.3 B parameters,
    `facebookresearch/vjepa2`).

    Args:
        encoder_config (`VJEPA2Config` or `dict`, *optional*):
            The image encoder; ViT-g at 256 px by default. Its `pred_*` fields are not used.
        grid_size (`tuple[int, int]`, *optional*):
            Rows and columns of the patch grid that the predictor works on. Default: the encoder's square grid.
            Another grid only serves latents that were made elsewhere: `encode` refuses it.
        predictor_hidden_size (`int`, *optional*, defaults to 1024):
            Width of the predictor.
        predictor_num_hidden_layers (`int`, *optional*, defaults to 24):
            Blocks of the predictor.
        predictor_num_attention_heads (`int`, *optional*, defaults to 16):
            Attention heads of the predictor.
        predictor_mlp_ratio (`float`, *optional*, defaults to 4.0):
            Width of the feed-forward layers over `predictor_hidden_size`.
        predictor_use_swiglu (`bool`, *optional*, defaults to `False`):
            SwiGLU feed-forward layers (width 2/3 of the above, rounded up to a multiple of 8) instead of GELU ones.
        predictor_use_rope (`bool`, *optional*, defaults to `True`):
            Rotary position embedding over frame, row and column. Without it the predictor knows no positions.
        predictor_layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the predictor's layer norms.
        predictor_identity_init (`bool`, *optional*, defaults to `False`):
            Initial weights under which the untrained predictor repeats the current frame instead of noise, so that a
            short training spends its steps on what changes. Needs `predictor_hidden_size` of at least the encoder's
            width. Without effect on loaded weights.
        action_dim (`int`, *optional*, defaults to 7):
            Dimensions of one action, A.
        state_dim (`int`, *optional*, defaults to 7):
            Dimensions of one robot state, S.
        use_extrinsics (`bool`, *optional*, defaults to `False`):
            Whether each frame also carries a token with the camera's extrinsics. The layer that reads them exists
            in either case, as it does in the released weights.
        extrinsics_dim (`int`, *optional*, defaults to 6):
            Dimensions of the camera's extrinsics.
        action_convention (`"normalized"` or `"metric"`, *optional*, defaults to `"normalized"`):
            `"normalized"` (NORA-1.5): actions as the policy's processor normalises them, states are zeros.
            `"metric"` (DROID, the released weights): actions are pose differences in metres and radians, states are
            poses, and a rollout integrates them; needs `action_dim = state_dim = 7`.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the initial weights.

    Example:

    ```python
    >>> from nora15_hf import VJEPA2ACConfig

    >>> config = VJEPA2ACConfig(action_convention="metric")
    >>> config.grid_size, config.encoder_config.hidden_size
    ((16, 16), 1408)
    ```
    """

    model_type = "vjepa2_ac"
    sub_configs_defaults = {
        "encoder_config": SubConfigSpec(
            config_class=VJEPA2Config,
            init_kwargs={
                "hidden_size": 1408,
                "num_hidden_layers": 40,
                "num_attention_heads": 22,
                "mlp_ratio": 48 / 11,
                "crop_size": 256,
                "patch_size": 16,
                "tubelet_size": 2,
                "frames_per_clip": 64,
            },
        ),
    }

    encoder_config: dict | PreTrainedConfig | None = None
    grid_size: list[int] | tuple[int, ...] | None = None
    predictor_hidden_size: int = 1024
    predictor_num_hidden_layers: int = 24
    predictor_num_attention_heads: int = 16
    predictor_mlp_ratio: float | int = 4.0
    predictor_use_swiglu: bool = False
    predictor_use_rope: bool = True
    predictor_layer_norm_eps: float = 1e-6
    predictor_identity_init: bool = False
    action_dim: int = 7
    state_dim: int = 7
    use_extrinsics: bool = False
    extrinsics_dim: int = 6
    action_convention: Literal["normalized", "metric"] = "normalized"
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.grid_size is None:
            self.grid_size = self.encoder_grid_size
        self.grid_size = tuple(self.grid_size)

    @property
    def encoder_grid_size(self) -> tuple[int, int]:
        """Rows and columns of the patches that the encoder makes of one frame."""
        side = self.encoder_config.crop_size // self.encoder_config.patch_size
        return side, side

    @property
    def num_patches(self) -> int:
        """Patches of one frame, P."""
        return self.grid_size[0] * self.grid_size[1]

    @property
    def predictor_head_dim(self) -> int:
        """Width of one attention head of the predictor."""
        return self.predictor_hidden_size // self.predictor_num_attention_heads

    @property
    def num_condition_tokens(self) -> int:
        """Tokens that precede a frame's patches: action, state and, with `use_extrinsics`, the camera."""
        return 3 if self.use_extrinsics else 2

    @property
    def tokens_per_frame(self) -> int:
        """Condition tokens and patches of one frame."""
        return self.num_condition_tokens + self.num_patches

    def validate_architecture(self):
        """Called by `@strict`: checks what has to agree."""
        encoder = self.encoder_config
        if encoder.crop_size % encoder.patch_size:
            raise ValueError(
                f"encoder_config.crop_size={encoder.crop_size} is not a multiple of patch_size={encoder.patch_size}: "
                "the pixels at the right and lower edge would be lost. Choose a multiple."
            )
        if self.predictor_hidden_size % self.predictor_num_attention_heads:
            raise ValueError(
                f"predictor_hidden_size={self.predictor_hidden_size} is not a multiple of "
                f"predictor_num_attention_heads={self.predictor_num_attention_heads}."
            )
        if self.predictor_use_rope and (self.predictor_head_dim < 6 or self.predictor_head_dim % 2):
            raise ValueError(
                f"predictor_hidden_size={self.predictor_hidden_size} with predictor_num_attention_heads="
                f"{self.predictor_num_attention_heads} gives a head dimension of {self.predictor_head_dim}. The rotary "
                "embedding turns pairs along three axes and needs an even head dimension of at least 6. Use fewer "
                "heads, or predictor_use_rope=False."
            )
        if self.predictor_identity_init and self.predictor_hidden_size < encoder.hidden_size:
            raise ValueError(
                f"predictor_identity_init needs a predictor at least as wide as the encoder, but predictor_hidden_size="
                f"{self.predictor_hidden_size} and encoder_config.hidden_size={encoder.hidden_size}."
            )
        if self.grid_size is not None and (len(self.grid_size) != 2 or min(self.grid_size) < 1):
            raise ValueError(
                f"grid_size={self.grid_size} must hold two positive numbers: rows and columns of patches."
            )
        for name in ("predictor_num_hidden_layers", "action_dim", "state_dim", "extrinsics_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.action_convention == "metric" and (self.action_dim, self.state_dim) != (7, 7):
            raise ValueError(
                f"action_convention='metric' integrates 7-D poses (position, Euler angles, gripper), but action_dim="
                f"{self.action_dim} and state_dim={self.state_dim}. Set both to 7, or action_convention='normalized'."
            )


__all__ = ["VJEPA2ACConfig"]
