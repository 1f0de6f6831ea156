# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What the trainers log arrives in the trackers of `report_to`, without a network (`make test-tracking`)."""

from pathlib import Path

import pytest

from helpers.every_trainer import preference, supervised, world_model

# Trainer, and a key that only it logs.
LOGGED = [(supervised, "flow_loss"), (preference, "flow_error/chosen"), (world_model, "predicted_latent_std")]
every_trainer = pytest.mark.parametrize(("make", "key"), LOGGED, ids=[make.__name__ for make, _ in LOGGED])


@every_trainer
def test_tensorboard(make, key, tmp_path: Path, monkeypatch):
    pytest.importorskip("tensorboard", reason="needs the extra `tracking`: make test-tracking")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    make(tmp_path, report_to="tensorboard", logging_steps=1).train()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [event.step for event in events.Scalars(f"train/{key}")] == [1, 2]


@every_trainer
def test_trackio(make, key, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="needs the extra `tracking`: make test-tracking")
    from trackio.sqlite_storage import SQLiteStorage

    make(tmp_path, report_to="trackio", logging_steps=1, project="arm", run_name="first").train()
    logged = [row for row in SQLiteStorage.get_logs("arm", "first") if f"train/{key}" in row]
    assert len(logged) == 2


@every_trainer
def test_wandb_offline(make, key, tmp_path: Path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb: make test-tracking")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    make(tmp_path, report_to="wandb", logging_steps=1).train()
    logged, run = dict(wandb.run.summary), Path(wandb.run.dir).parent
    wandb.finish()
    assert f"train/{key}" in logged
    assert len(list(run.glob("run-*.wandb"))) == 1
