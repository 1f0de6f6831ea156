# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""How every trainer keeps its metrics between two logs."""

from collections import defaultdict
from collections.abc import Mapping
from typing import NoReturn

import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput


class MeanMetricsMixin:
    """
    Adds means to what a trainer logs: over all steps, accumulated batches and processes since the last log in training,
    over the whole dataset in evaluation.

    `compute_loss` or `prediction_step` call `_record`. Sums stay on the device, `_metrics[mode]` by name as `(2,)` tensors
    of a sum and its weight; processes exchange them, and the device is waited for, only when they are logged. Stands
    before [`~transformers.Trainer`] or one of its subclasses among the bases.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._metrics: dict[str, dict[str, torch.Tensor]] = {
            "train": defaultdict(self._zero),
            "eval": defaultdict(self._zero),
        }

    def _zero(self) -> torch.Tensor:
        return torch.zeros(2, device=self.args.device)

    def _record(self, sums: Mapping[str, torch.Tensor], weight: float | torch.Tensor = 1) -> None:
        """
        Adds to the metrics of training or evaluation, whichever the model is in.

        Every process must record the same names in the same order.

        Args:
            sums (`Mapping[str, torch.Tensor]`): By name, a scalar: the metric summed over `weight` of what its mean is
                taken over (pairs, tokens, batches, steps).
            weight (`float` or scalar `torch.Tensor`, *optional*, defaults to 1): That number.
        """
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in sums.items():
            metrics[name][0] += value.detach()
            metrics[name][1] += weight

    def _take_means(self, mode: str) -> dict[str, float]:
        """Means over all processes of what has been recorded, which is then forgotten; every process must call it."""
        metrics = dict(self._metrics[mode])
        self._metrics[mode].clear()
        if not metrics:
            return {}
        sums, weights = self.accelerator.reduce(torch.stack(list(metrics.values())), "sum").unbind(1)
        return dict(zip(metrics, (sums / weights.clamp(min=1)).tolist(), strict=True))

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As in `Trainer`, with the means since the last log."""
        if self.model.training:
            # In place, as TRL does: whoever logs may read them afterwards.
            logs.update(self._take_means("train"))
        super().log(logs, *args, **kwargs)

    def evaluation_loop(
        self, dataloader: DataLoader, description: str, *args, metric_key_prefix: str = "eval", **kwargs
    ) -> EvalLoopOutput:
        """As in `Trainer`, with the means over the dataset."""
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in self._take_means("eval").items()})
        return output

    def predict(self, *args, **kwargs) -> NoReturn:
        """
        Refused: evaluation keeps no predictions.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"{type(self).__name__}.predict is not available: evaluation computes losses and keeps no predictions. Call "
            "evaluate(dataset) for the metrics of a dataset, and the model itself for what it predicts (a policy's "
            "sample_actions, a world model's rollout)."
        )


__all__ = ["MeanMetricsMixin"]
