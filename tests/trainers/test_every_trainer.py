# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What holds in all four trainers: the order of arguments, what is refused, metrics over processes, no pickled arguments."""

import inspect
import json

import pytest
import torch
import transformers.trainer
from safetensors.torch import save
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames
from trl import DPOConfig, DPOTrainer

from helpers.blobs import write_blobs
from helpers.encoder_pretraining_run import pretrain
from helpers.every_trainer import encoder_pretraining, preference, supervised, world_model
from helpers.warm_processes import run_processes
from nora15_hf import trainers
from nora15_hf.trainers.argument_checks import check_training

MAKERS = [supervised, preference, world_model, encoder_pretraining]
TRAINERS = {name: value for name, value in vars(trainers).items() if name.endswith("Trainer")}
every_trainer = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def test_there_are_four_with_a_configuration_each():
    configurations = {name for name in vars(trainers) if name.endswith("Config")}
    assert set(TRAINERS) == {
        "Nora15SFTTrainer", "FlowDPOTrainer", "WorldModelTrainer", "EncoderPretrainingTrainer",
    }  # fmt: skip
    assert configurations == {
        "Nora15SFTConfig", "FlowDPOConfig", "WorldModelTrainingConfig", "EncoderPretrainingConfig",
    }  # fmt: skip


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
@pytest.mark.parametrize("parent", [Trainer, DPOTrainer])
def test_arguments_have_the_names_and_the_order_of_transformers_and_trl(trainer, parent):
    own = [name for name in inspect.signature(trainer.__init__).parameters if name != "kwargs"]
    common = ["self", "model", "args", "train_dataset", "eval_dataset", "processing_class", "callbacks", "optimizers"]
    assert [name for name in own if name in common] == common
    theirs = [name for name in inspect.signature(parent.__init__).parameters if name in own]
    # Everything behind the first two is given by name.
    named = inspect.signature(trainer.__init__).parameters
    assert {name for name in own if named[name].kind is inspect.Parameter.KEYWORD_ONLY} == set(own[3:])
    assert [name for name in own[3:] if name in theirs and name != "ref_model"] == [
        name for name in theirs if name in own[3:] and name != "ref_model"
    ]
    assert set(own) <= set(inspect.signature(Trainer.__init__).parameters) | set(
        inspect.signature(DPOTrainer.__init__).parameters
    )


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
class TestRefusedByName:
    @pytest.mark.parametrize(
        "option", ["compute_loss_func", "compute_metrics", "preprocess_logits_for_metrics", "model_init"]
    )
    def test_options_that_would_not_be_looked_at(self, trainer, option):
        with pytest.raises(ValueError, match=rf"^{option} (would|needs)"):
            trainer(None, None, train_dataset=None, processing_class=None, **{option: len})

    def test_arguments_of_other_trainers(self, trainer, tmp_path):
        for other in (TrainingArguments, DPOConfig):
            args = other(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
            with pytest.raises(TypeError, match=rf"args is a {other.__name__}, expected (?!{other.__name__}).*Config"):
                trainer(None, args, train_dataset=None, processing_class=None)

    def test_models_and_datasets_of_other_kinds(self, trainer, tmp_path):
        args = (
            inspect.signature(trainer.__init__)
            .parameters["args"]
            .annotation(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
        )
        with pytest.raises(TypeError, match="model is a Linear, expected a"):
            trainer(torch.nn.Linear(1, 1), args, train_dataset=None, processing_class=None)

    def test_predictions(self, trainer):
        with pytest.raises(NotImplementedError, match=rf"{trainer.__name__}.predict .*evaluate\(dataset\)"):
            trainer.predict(trainer.__new__(trainer), None)


@every_trainer
def test_an_evaluation_does_not_depend_on_its_batches(make, tmp_path):
    """Nor does it say anything else when it is repeated."""
    trainer = make(tmp_path)
    found = []
    for batch_size in (1, 3, 8):
        trainer.args.per_device_eval_batch_size = batch_size
        metrics = trainer.evaluate(trainer.train_dataset)
        found.append(
            {name: value for name, value in metrics.items() if not name.endswith(("runtime", "second", "time"))}
        )
    assert found[0]["eval_loss"] > 0
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("make", [preference, world_model, encoder_pretraining], ids=lambda make: make.__name__)
def test_streams_are_refused_in_one_sentence(make, tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    trainer = make(tmp_path)
    with pytest.raises(TypeError, match=r"^eval_dataset is a Stream, expected"):
        trainer.evaluate(Stream())


@every_trainer
def test_batches_that_one_process_would_cut_up_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match="dispatch_batches=True, which cuts every tensor"):
        make(tmp_path, accelerator_config={"dispatch_batches": True})


@every_trainer
def test_several_gpus_in_one_process_are_refused(make, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match=r"DataParallel(.|\n)*accelerate launch.*CUDA_VISIBLE_DEVICES"):
        make(tmp_path)


@every_trainer
def test_weights_that_round_small_updates_away_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"learns in torch\.bfloat16: small updates .*dtype=torch\.float32"):
        make(tmp_path, change=lambda model: model.to(torch.bfloat16))


@every_trainer
def test_optimizers_that_cannot_run_are_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r'optim="paged_adamw_8bit" pages .* on cpu. Use optim="adamw_8bit"'):
        make(tmp_path, optim="paged_adamw_8bit")


def test_optimizers_of_bitsandbytes_are_refused_under_fsdp(tmp_path):
    trainer = world_model(tmp_path)
    trainer.is_fsdp_enabled, trainer.args.optim = True, OptimizerNames.ADAMW_8BIT
    with pytest.raises(ValueError, match=r'optim="adamw_8bit" is bitsandbytes.*FSDP'):
        check_training(trainer)


def test_a_model_of_which_nothing_learns_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"No parameter of model requires a gradient"):
        world_model(tmp_path, change=lambda model: model.requires_grad_(False))


@pytest.mark.slow
def test_a_compiled_policy_learns_the_same(tmp_path):
    """Graphs are captured, broken and joined as with any backend; this one computes as without."""
    logs = []
    for number, options in enumerate([{}, {"torch_compile": True, "torch_compile_backend": "eager"}]):
        trainer = supervised(tmp_path / str(number), logging_steps=1, max_steps=1, save_strategy="no", **options)
        trainer.train()
        logs.append([(log["loss"], log["grad_norm"]) for log in trainer.state.log_history if "grad_norm" in log])
    torch.testing.assert_close(torch.tensor(logs[1]), torch.tensor(logs[0]), atol=1e-5, rtol=1e-4)


@every_trainer
def test_no_saved_folder_holds_pickled_arguments(make, tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    trainer.save_model()
    saved = {path.parent.name for path in tmp_path.rglob("*.safetensors")}
    assert {"checkpoint-1", "checkpoint-2", "training"} <= saved
    assert not list(tmp_path.rglob("training_args.bin"))
    # Other trainers in the same process still write theirs.
    assert transformers.trainer.TRAINING_ARGS_NAME == "training_args.bin"


@every_trainer
@pytest.mark.slow
def test_a_run_is_continued_in_another_folder_with_the_same_batch_only(make, tmp_path, monkeypatch):
    """Also where the rows of a step are accumulated, and without a complaint about weights that are tied."""
    average = {"ema_decay": 0.5} if make is supervised else {}
    whole = make(tmp_path / "whole", **average)
    whole.train()
    first, folder = tmp_path / "whole" / "training" / "checkpoint-1", tmp_path / "other" / "training"
    # Another run, which only lies where the continued one writes.
    make(tmp_path / "other", max_steps=1, seed=3, **average).train()
    complaints = []
    monkeypatch.setattr(transformers.trainer.logger, "warning", complaints.append)
    halves = {"per_device_train_batch_size": 1, "output_dir": str(folder), **average}
    fork = make(tmp_path / "fork", gradient_accumulation_steps=2, **halves)
    fork.train(resume_from_checkpoint=str(first))
    assert not [complaint for complaint in complaints if "keys" in complaint]
    for name, found in fork.model.state_dict().items():
        torch.testing.assert_close(found, whole.model.state_dict()[name], rtol=1e-4, atol=1e-6, msg=name)
    smaller = make(tmp_path / "smaller", **halves)
    with pytest.raises(
        ValueError, match=r"takes 2 rows \(.*processes=1\), .* 1 rows .*gradient_accumulation_steps=2 to"
    ):
        smaller.train(resume_from_checkpoint=str(first))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (save({"head.weight": torch.zeros(1)}), "averages parameters other than those that are trained now"),
        (b"{", "is damaged"),
    ],
    ids=["other parameters", "damaged"],
)
def test_a_moving_average_that_does_not_fit_is_not_continued(content, message, tmp_path):
    supervised(tmp_path / "first", ema_decay=0.5).train()
    checkpoint = tmp_path / "first" / "training" / "checkpoint-1"
    (checkpoint / "ema.safetensors").write_bytes(content)
    other = supervised(tmp_path / "other", ema_decay=0.5, max_steps=3)
    with pytest.raises(ValueError, match=message):
        other.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("make", [supervised, preference, world_model], ids=lambda make: make.__name__)
@pytest.mark.slow
def test_no_upload_holds_pickled_arguments(make, hub, tmp_path):
    """Uploads at every save, with the state for continuing elsewhere, then the end of the training."""
    trainer = make(
        tmp_path,
        push_to_hub=True,
        hub_model_id="robots/training",
        hub_strategy="checkpoint",
        hub_always_push=True,
    )
    trainer.train()
    trainer.save_model()
    files = hub.files("robots/training")
    assert "model.safetensors" in files
    assert "last-checkpoint/optimizer.pt" in files
    assert not [file for file in files if file.endswith("training_args.bin")]


@pytest.mark.slow
def test_encoder_pretraining_logs_means_over_processes(tmp_path):
    """Two processes see the batches that one accumulates, and log the same, each metric over both of them."""
    write_blobs(tmp_path / "blobs", 4)
    runs = {}
    pretrain(tmp_path / "blobs", tmp_path / "1", accumulated_batches=2)
    run_processes(pretrain, tmp_path / "blobs", tmp_path / "2", 1)
    for processes in (1, 2):
        folder = tmp_path / f"{processes}"
        runs[processes] = [log for log in json.loads((folder / "log_history.json").read_text()) if "loss" in log]
    names = ("loss", "grad_norm", "prediction_loss", "reconstruction_loss", "latent_std", "latent_rank")
    assert len(runs[1]) == len(runs[2]) == 2
    for one, two in zip(runs[1], runs[2], strict=True):
        for name in names:
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
