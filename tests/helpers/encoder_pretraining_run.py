# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Four steps of encoder pre-training; the main process writes what was logged to `log_history.json`."""

import json
from pathlib import Path

from helpers.blobs import blob_clips, blob_model
from nora15_hf.trainers import EncoderPretrainingConfig, EncoderPretrainingTrainer

__all__ = ["pretrain"]


def pretrain(demonstrations: Path, folder: Path, accumulated_batches: int) -> None:
    model, processor = blob_model()
    clips, _ = blob_clips(demonstrations, num_frames=2)
    args = EncoderPretrainingConfig(
        str(folder),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulated_batches,
        lr_scheduler_type="constant",
        logging_steps=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = EncoderPretrainingTrainer(model, args, train_dataset=clips, processing_class=processor)
    trainer.train()
    if trainer.is_world_process_zero():
        (folder / "log_history.json").write_text(json.dumps(trainer.state.log_history))
