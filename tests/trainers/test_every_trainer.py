# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What holds in all four trainers: the order of arguments, what is refused, metrics over processes, no pickled arguments."""

import inspect
import json
import shutil

import pytest
import torch
import transformers.trainer
from datasets import Dataset
from safetensors.torch import save
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.training_args import OptimizerNames
from trl import DPOConfig, DPOTrainer

from helpers.blobs import write_blobs
from helpers.encoder_pretraining_run import pretrain
from helpers.every_trainer import encoder_pretraining, preference, supervised, world_model
from helpers.flow_dpo_runs import make_rows
from helpers.warm_processes import run_processes
from nora15_hf import trainers
from nora15_hf.nora15.presets import tiny_policy
from nora15_hf.trainers import FlowDPOConfig, FlowDPOTrainer, Nora15SFTConfig, Nora15SFTTrainer
from nora15_hf.trainers.argument_checks import check_training
from nora15_hf.trainers.continued_run import check_files

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


@every_trainer
def test_a_run_without_a_complete_batch_is_refused(make, tmp_path):
    trainer = make(tmp_path, dataloader_drop_last=True, per_device_train_batch_size=1000)
    with pytest.raises(
        ValueError, match=r"dataloader_drop_last=True drops the only batch: train_dataset has \d+ rows"
    ):
        trainer.train()


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
    with pytest.raises(ValueError, match=r"is trained in torch\.bfloat16: small updates .*dtype=torch\.float32"):
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


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict:
    """The first checkpoint of a run of each trainer."""
    folders = {make: tmp_path_factory.mktemp(make.__name__) for make in MAKERS}
    for make, folder in folders.items():
        make(folder, max_steps=1).train()
    return {make: folder / "training" / "checkpoint-1" for make, folder in folders.items()}


def on_other_data(trainer, folder):
    """As many rows, of which one has other numbers, under the same names."""
    data = trainer.train_dataset
    if isinstance(data, Dataset):
        trainer.train_dataset = data.map(
            lambda row, index: {"rejected": row["chosen"]} if index == 0 else {}, with_indices=True
        )
    else:
        dataset = getattr(data, "dataset", data)
        dataset._table.actions[0] += 0.25
    return trainer


@every_trainer
def test_a_run_is_not_continued_on_other_data(make, checkpoints, tmp_path):
    trainer = make(tmp_path, max_steps=2)
    assert (
        trainer.data_fingerprint()
        == TrainerState.load_from_json(str(checkpoints[make] / TRAINER_STATE_NAME)).stateful_callbacks["TrainingData"][
            "attributes"
        ]["fingerprint"]
    )
    with pytest.raises(ValueError, match=r"checkpoint-1 was written by a run on other data than train_dataset"):
        on_other_data(trainer, tmp_path).train(resume_from_checkpoint=str(checkpoints[make]))


@pytest.mark.parametrize(
    "file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("content", [b"", b"\x81" * 99, None], ids=["empty", "noise", "half"])
def test_a_damaged_checkpoint_is_told_by_its_file(file, content, checkpoints, tmp_path):
    folder = tmp_path / "checkpoint-1"
    shutil.copytree(checkpoints[supervised], folder)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match=rf"checkpoint-1/{file} is damaged or incomplete"):
        check_files(folder)


def test_a_checkpoint_without_an_optimizer_is_said(checkpoints, tmp_path, caplog):
    shutil.copytree(checkpoints[supervised], tmp_path / "checkpoint-1")
    check_files(tmp_path / "checkpoint-1")
    assert not caplog.text
    (tmp_path / "checkpoint-1" / "optimizer.pt").unlink()
    check_files(tmp_path / "checkpoint-1")
    assert "holds no optimizer state" in caplog.text


@pytest.mark.parametrize(
    ("dataset", "kind"), [("arm", "str"), ({"a": []}, "dict"), ((row for row in ()), "generator"), (3, "int")]
)
def test_supervised_training_on_something_else(dataset, kind, tmp_path):
    model, processor = tiny_policy(image_size=56)
    args = Nora15SFTConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    with pytest.raises(TypeError, match=rf"train_dataset is a {kind}, expected a dataset of samples: LeRobotDataset"):
        Nora15SFTTrainer(model, args, train_dataset=dataset, processing_class=processor)


def test_a_reference_of_another_kind(tmp_path):
    model, processor = tiny_policy(image_size=56)
    args = FlowDPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    options = {"train_dataset": make_rows(), "processing_class": processor}
    with pytest.raises(TypeError, match="ref_model is a str, expected a Nora15ForActionPrediction"):
        FlowDPOTrainer(model, args, ref_model="policy", **options)
    with pytest.raises(ValueError, match="chunk size: the model has 3, the processor 5"):
        FlowDPOTrainer(model, args, ref_model=tiny_policy(image_size=56, chunk_size=3)[0], **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (save({"head.weight": torch.zeros(1)}), "averages parameters other than those that are trained now"),
        (b"{", "is damaged"),
    ],
    ids=["other parameters", "damaged"],
)
@pytest.mark.slow
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
