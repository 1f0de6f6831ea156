# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Supervised training of the policy on transformers' Trainer."""

from collections import defaultdict

import torch
from torch import nn
from transformers import Trainer

from ..nora15 import Nora15ForActionPrediction, Nora15Output
from .ema import EmaCallback
from .sft_config import FREEZABLE, Nora15SFTConfig


class Nora15SFTTrainer(Trainer):
    r"""
    Trains the policy on demonstrations: FAST-token cross-entropy plus 10 x flow matching (paper, appendix C).

    Besides the Trainer's own metrics it logs `lm_loss` and `flow_loss`, each the mean since the last log.

    Args:
        model ([`Nora15ForActionPrediction`]): Float32 weights; bf16 compute through `args.bf16`.
        args ([`Nora15SFTConfig`]): The arguments.
        kwargs: As for `Trainer`: `train_dataset` of samples, `data_collator` ([`PolicyCollator`]), `processing_class`.
    """

    args: Nora15SFTConfig

    def __init__(self, model: Nora15ForActionPrediction, args: Nora15SFTConfig, **kwargs):
        prefixes = tuple(prefix for part in args.freeze for prefix in FREEZABLE[part])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(prefixes) if prefixes else True)
        too_coarse = sorted({str(p.dtype) for p in model.parameters() if p.requires_grad and p.dtype != torch.float32})
        if too_coarse:
            raise ValueError(
                f"Trainable parameters have dtype {', '.join(too_coarse)}: small updates would be rounded away. Load the "
                "model with dtype=torch.float32 and pass bf16=True to compute in bf16."
            )
        super().__init__(model=model, args=args, **kwargs)
        if args.ema_decay is not None:
            self.add_callback(EmaCallback(args.ema_decay))
        self._loss_parts: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Nora15Output]:
        """The joint loss, or one of its parts as `args.objective` says."""
        dropped = {"joint": (), "flow": ("labels",), "fast": ("actions", "action_mask")}[self.args.objective]
        outputs = model(**{key: value for key, value in inputs.items() if key not in dropped})
        if model.training:
            for part in ("lm_loss", "flow_loss"):
                if part in outputs:
                    self._loss_parts[part].append(outputs[part].item())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the loss parts collected since the last call."""
        if "loss" in logs:
            logs.update({part: sum(values) / len(values) for part, values in self._loss_parts.items()})
            self._loss_parts.clear()
        super().log(logs, *args, **kwargs)


__all__ = ["Nora15SFTTrainer"]
