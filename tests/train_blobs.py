# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Twenty steps of world-model training, for `accelerate launch`.

    accelerate launch tests/train_blobs.py DATASET OUTPUT BATCH_SIZE_PER_PROCESS
"""

import json
import sys
from pathlib import Path

from blobs import blob_clips, blob_model
from nora15_hf.trainers import WorldModelConfig, WorldModelTrainer

__all__ = ["main"]


def main(dataset: str | Path, output: str | Path, batch_size: str | int) -> None:
    """Writes the logged losses to `losses.json` in the output folder."""
    model, processor = blob_model()
    clips, _ = blob_clips(Path(dataset), num_frames=4)
    args = WorldModelConfig(
        str(output),
        per_device_train_batch_size=int(batch_size),
        max_steps=20,
        logging_steps=1,
        learning_rate=1e-3,
        warmup_steps=2,
        dataloader_drop_last=True,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = WorldModelTrainer(model, args, clips, processor)
    trainer.train()
    if trainer.is_world_process_zero():
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        names = ("loss", "teacher_forcing_loss", "autoregressive_loss")
        Path(output, "losses.json").write_text(json.dumps({name: [log[name] for log in logs] for name in names}))


if __name__ == "__main__":
    main(*sys.argv[1:])
