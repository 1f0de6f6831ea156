# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Policies with random weights at the sizes that the speed benchmarks run, and prompts for them."""

import torch

from nora15_hf import Nora15Config, Nora15ForActionPrediction, Nora15Processor
from nora15_hf.nora15.presets import tiny_policy

# Everything between `tiny`, for tests, and `released`, the published 3 B model. `cpu` has its proportions: the MLP is 5.4
# times as wide as the backbone, the expert 0.75 times, four vision blocks of eight attend to the whole picture.
SIZES = {
    "tiny": {
        "text": {"vocab_size": 600, "hidden_size": 64, "intermediate_size": 192, "layers": 3, "heads": 4},
        "vision": {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "full": [1]},
        "expert": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2},
        "mrope_section": [2, 3, 3],
        "action_token_start_id": 300,
        "num_action_tokens": 256,
    },
    "cpu": {
        "text": {"vocab_size": 32000, "hidden_size": 512, "intermediate_size": 2752, "layers": 12, "heads": 8},
        "vision": {"hidden_size": 320, "intermediate_size": 856, "depth": 8, "num_heads": 5, "full": [1, 3, 5, 7]},
        "expert": {"hidden_size": 384, "intermediate_size": 1024, "num_attention_heads": 6},
        "mrope_section": [8, 12, 12],
        "action_token_start_id": 29000,
        "num_action_tokens": 2048,
    },
}
KEY_VALUE_HEADS = 2
PROMPT_TOKENS = 90
IMAGE_GRID = (1, 16, 16)
END, PAD, IMAGE, VIDEO, VISION_START, VISION_END = range(6)


def policy_config(size: str) -> Nora15Config:
    """Configuration of `"tiny"`, `"cpu"` or `"released"`."""
    if size == "released":
        return Nora15Config()
    sizes = SIZES[size]
    text, vision = sizes["text"], sizes["vision"]
    return Nora15Config(
        vlm_config={
            "text_config": {
                "vocab_size": text["vocab_size"],
                "hidden_size": text["hidden_size"],
                "intermediate_size": text["intermediate_size"],
                "num_hidden_layers": text["layers"],
                "num_attention_heads": text["heads"],
                "num_key_value_heads": KEY_VALUE_HEADS,
                "max_position_embeddings": 2048,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 1e6,
                    "mrope_section": sizes["mrope_section"],
                },
                "bos_token_id": None,
                "eos_token_id": END,
                "pad_token_id": PAD,
            },
            "vision_config": {
                "depth": vision["depth"],
                "hidden_size": vision["hidden_size"],
                "intermediate_size": vision["intermediate_size"],
                "num_heads": vision["num_heads"],
                "out_hidden_size": text["hidden_size"],
                "fullatt_block_indexes": vision["full"],
            },
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "vision_start_token_id": VISION_START,
            "vision_end_token_id": VISION_END,
            "tie_word_embeddings": True,
        },
        action_expert_config=sizes["expert"],
        action_token_start_id=sizes["action_token_start_id"],
        num_action_tokens=sizes["num_action_tokens"],
    )


def random_policy(
    size: str, device: str = "cpu", dtype: torch.dtype = torch.float32, config: Nora15Config | None = None
) -> Nora15ForActionPrediction:
    """A policy of that size in evaluation mode. Weights are drawn wide enough for the actions to depend on the inputs."""
    with torch.device(device):
        torch.manual_seed(0)
        model = Nora15ForActionPrediction._from_config(config or policy_config(size), dtype=dtype)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_tokens" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return model.eval()


def random_policy_with_processor(
    size: str, device: str = "cpu"
) -> tuple[Nora15ForActionPrediction, Nora15Processor, str]:
    """A float32 policy of that size, a processor for it, and an instruction of which it makes a prompt of 90 tokens."""
    config = policy_config(size)
    pixels = config.vlm_config.vision_config.patch_size * IMAGE_GRID[1]
    tiny, processor = tiny_policy(image_size=pixels, chunk_size=config.chunk_size, action_dim=config.action_dim)
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config.vlm_config, name, getattr(tiny.config.vlm_config, name))
    for name in ("eos_token_id", "pad_token_id"):
        setattr(config.vlm_config.text_config, name, getattr(tiny.config.vlm_config.text_config, name))
    for name in ("action_token_start_id", "num_action_tokens"):
        setattr(config, name, getattr(tiny.config, name))
    instruction = "open the faucet"
    while len(processor.prompt_ids(instruction)[0]) < PROMPT_TOKENS:
        instruction += " the"
    return random_policy(size, device, config=config), processor, instruction


def random_prompt(model: Nora15ForActionPrediction, batch: int = 1) -> dict[str, torch.Tensor]:
    """What the processor returns for `batch` observations with one 224 px picture and a prompt of 90 tokens each."""
    config = model.config
    image_tokens = IMAGE_GRID[1] * IMAGE_GRID[2] // config.vlm_config.vision_config.spatial_merge_size**2
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(10, config.action_token_start_id, (batch, PROMPT_TOKENS), generator=generator)
    input_ids[:, 10] = config.vlm_config.vision_start_token_id
    input_ids[:, 11 : 11 + image_tokens] = config.vlm_config.image_token_id
    input_ids[:, 11 + image_tokens] = config.vlm_config.vision_end_token_id
    patches = IMAGE_GRID[1] * IMAGE_GRID[2]
    pixel_values = torch.randn(batch * patches, 3 * 2 * 14 * 14, generator=generator)
    return {
        "input_ids": input_ids.to(model.device),
        "attention_mask": torch.ones_like(input_ids).to(model.device),
        "pixel_values": pixel_values.to(model.device),
        "image_grid_thw": torch.tensor([IMAGE_GRID] * batch).to(model.device),
    }


__all__ = ["policy_config", "random_policy", "random_policy_with_processor", "random_prompt"]
