# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""
Nothing of a module is passed over where weights are read: every module of policy and world model is changed in every way, and
what was computed by reading is compared with what calling computes.

The fast walk proves it in two steps. Each change of each module is noticed, and a network of which anything is noticed takes
the same code as with reading turned off. The slow walk computes all of it in both ways.
"""

import contextlib
import copy

import pytest
import torch
from accelerate import cpu_offload
from peft import LNTuningConfig, LoraConfig, inject_adapter_in_model
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._pytree import tree_map

from helpers.inference_runs import CLOSE, draw, widen
from nora15_hf.nora15 import Nora15Config, Nora15ForActionPrediction, generation_nora15
from nora15_hf.nora15.inference.known_policy import is_known_backbone, is_known_expert, is_known_generator
from nora15_hf.vjepa2_ac import VJEPA2ACConfig, VJEPA2ACModel, modeling_vjepa2_ac
from nora15_hf.vjepa2_ac.buffered_frames import can_be_read
from nora15_hf.vjepa2_ac.modeling_vjepa2_ac import VJEPA2ACPredictor, VJEPA2Encoder

NEVER_CALLED = (nn.ModuleList, nn.Dropout)


class PolicyWalk:
    """A policy of two layers in each of its parts, with all that it reads."""

    def __init__(self):
        config = Nora15Config(
            vlm_config={
                "text_config": {
                    "vocab_size": 64,
                    "hidden_size": 32,
                    "intermediate_size": 32,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 1,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
                    "bos_token_id": None,
                    "eos_token_id": 0,
                    "pad_token_id": 1,
                },
                "vision_config": {
                    "depth": 2,
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_heads": 2,
                    "out_hidden_size": 32,
                    "fullatt_block_indexes": [1],
                },
                "image_token_id": 2,
                "video_token_id": 3,
                "vision_start_token_id": 4,
                "vision_end_token_id": 5,
                "tie_word_embeddings": False,
            },
            action_expert_config={"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 1},
            action_token_start_id=40,
            num_action_tokens=16,
            chunk_size=2,
            action_dim=2,
            state_dim=3,
        )
        torch.manual_seed(0)
        self.model = widen(Nora15ForActionPrediction(config))
        self.inputs = {
            "input_ids": torch.tensor([[4, 2, 2, 2, 2, 5, 20]]),
            "pixel_values": draw(16, 3 * 2 * 14 * 14),
            "image_grid_thw": torch.tensor([[1, 4, 4]]),
        }
        self.scores: list[torch.Tensor] = []

    def run(self) -> list[torch.Tensor]:
        """Actions, and the scores of two FAST tokens."""
        self.scores.clear()
        state, noise = draw(1, 3, seed=1), draw(1, 2, 2, seed=2)
        actions = self.model.sample_actions(**self.inputs, state=state, noise=noise, num_steps=2)
        self.model.generate_actions(**self.inputs, max_new_tokens=2)
        return [actions, *self.scores]

    @torch.no_grad()
    def is_read(self) -> list[bool]:
        """Of each part."""
        return [is_known_backbone(self.model), is_known_expert(self.model), is_known_generator(self.model)]

    @contextlib.contextmanager
    def called(self):
        """Reading is turned off."""
        self.model.use_inference_path = False
        yield
        self.model.use_inference_path = True

    def part_of(self, path: str) -> int:
        """Which part reads a module; what holds the parts of the backbone together is called to generate."""
        if path.startswith(("vlm.model.visual", "vlm.model.language_model")):
            return 0
        return 2 if path.startswith("vlm") else 1


class WorldModelWalk:
    """A world model of two layers in each of its parts."""

    def __init__(self):
        config = VJEPA2ACConfig(
            encoder_config={
                "hidden_size": 12,
                "num_hidden_layers": 2,
                "num_attention_heads": 1,
                "crop_size": 32,
                "patch_size": 16,
                "frames_per_clip": 2,
            },
            predictor_hidden_size=12,
            predictor_num_hidden_layers=2,
            predictor_num_attention_heads=1,
            use_extrinsics=True,
        )
        torch.manual_seed(0)
        self.model = widen(VJEPA2ACModel(config))

    @torch.no_grad()
    def run(self) -> list[torch.Tensor]:
        latents = self.model.encode(draw(1, 1, 3, 32, 32))
        extrinsics = draw(1, self.model.config.extrinsics_dim)
        actions = draw(1, 2, self.model.config.action_dim)
        return [latents, self.model.rollout(latents, actions, extrinsics=extrinsics)]

    @torch.no_grad()
    def is_read(self) -> list[bool]:
        return [can_be_read(self.model.encoder, VJEPA2Encoder), can_be_read(self.model.predictor, VJEPA2ACPredictor)]

    @contextlib.contextmanager
    def called(self):
        original = modeling_vjepa2_ac.can_be_read
        modeling_vjepa2_ac.can_be_read = lambda *_: False
        yield
        modeling_vjepa2_ac.can_be_read = original

    def part_of(self, path: str) -> int:
        return 0 if path.startswith("encoder") else 1


@pytest.fixture(scope="module", params=[PolicyWalk, WorldModelWalk], ids=["policy", "world model"])
def walk(request):
    return request.param()


@pytest.fixture(autouse=True)
def recorded_scores(walk, monkeypatch):
    """Tokens of a small network would often be the same after a change. What cannot be read is left to `generate`."""
    original, restrict = generation_nora15.pick_token, generation_nora15.ActionTokensOnly.__call__

    def pick_token(*args):
        pick = original(*args)
        return lambda scores, rows: walk.scores.append(scores) or pick(scores, rows)

    def restricted(self, input_ids, scores):
        scores = restrict(self, input_ids, scores)
        walk.scores.append(scores[scores.isfinite()][None])
        return scores

    monkeypatch.setattr(generation_nora15, "pick_token", pick_token)
    monkeypatch.setattr(generation_nora15.ActionTokensOnly, "__call__", restricted)


# What can happen to a module: each takes the network, the path of a module and a list for its calls, and undoes itself. None is
# returned where it cannot happen to such a module.


def scale(value):
    return tree_map(lambda x: x * 1.3 if isinstance(x, torch.Tensor) and x.is_floating_point() else x, value)


def scale_arguments(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Tensors alone: a cache is to stay the same object."""
    args = tuple(scale(x) if isinstance(x, torch.Tensor) else x for x in args)
    return args, {name: scale(x) if isinstance(x, torch.Tensor) else x for name, x in kwargs.items()}


@contextlib.contextmanager
def hooked(handle):
    yield
    handle.remove()


def forward_hook(network, path, calls):
    hook = lambda module, args, output: calls.append(1) or scale(output)  # noqa: E731
    return hooked(network.get_submodule(path).register_forward_hook(hook))


def hook_that_is_always_called(network, path, calls):
    hook = lambda module, args, kwargs, output: calls.append(1) or scale(output)  # noqa: E731
    return hooked(network.get_submodule(path).register_forward_hook(hook, with_kwargs=True, always_call=True))


def pre_hook(network, path, calls):
    hook = lambda module, args: calls.append(1) or scale_arguments(args, {})[0]  # noqa: E731
    return hooked(network.get_submodule(path).register_forward_pre_hook(hook))


def pre_hook_with_keywords(network, path, calls):
    hook = lambda module, args, kwargs: calls.append(1) or scale_arguments(args, kwargs)  # noqa: E731
    return hooked(network.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True))


@contextlib.contextmanager
def _changed(undo):
    try:
        yield
    finally:
        undo()


def replaced_forward(network, path, calls):
    module = network.get_submodule(path)
    original = module.forward
    module.forward = lambda *args, **kwargs: calls.append(1) or scale(original(*args, **kwargs))
    return _changed(lambda: vars(module).pop("forward"))


def called_otherwise(network, path, calls):
    """What leads to `forward`, replaced on the object."""
    module = network.get_submodule(path)
    original = module._call_impl
    module._call_impl = lambda *args, **kwargs: calls.append(1) or scale(original(*args, **kwargs))
    return _changed(lambda: vars(module).pop("_call_impl"))


def compiled(network, path, calls):
    """What `module.compile(backend=...)` does, with another backend than PyTorch's."""
    module = network.get_submodule(path)
    module._compiled_call_impl = lambda *args, **kwargs: calls.append(1) or scale(module._call_impl(*args, **kwargs))
    return _changed(lambda: vars(module).pop("_compiled_call_impl"))


def subclass(network, path, calls):
    module = network.get_submodule(path)
    original = type(module)

    def forward(self, *args, **kwargs):
        calls.append(1)
        return scale(original.forward(self, *args, **kwargs))

    module.__class__ = type(f"Other{original.__name__}", (original,), {"forward": forward})
    return _changed(lambda: setattr(module, "__class__", original))


class Wrapper(nn.Module):
    """As peft's: calls what it wraps, and has its attributes."""

    def __init__(self, inner, calls):
        super().__init__()
        self.inner, self.calls = inner, calls

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def __iter__(self):
        return iter(self.inner)

    def __len__(self):
        return len(self.inner)

    def forward(self, *args, **kwargs):
        self.calls.append(1)
        return scale(self.inner(*args, **kwargs))


def _replaced(network, path, other):
    module = network.get_submodule(path)
    network.set_submodule(path, other)
    return _changed(lambda: network.set_submodule(path, module))


def wrapper(network, path, calls):
    return _replaced(network, path, Wrapper(network.get_submodule(path), calls))


def other_weights(network, path, calls):
    """Another module of the same type: read or called, it is the one that counts."""
    other = copy.deepcopy(network.get_submodule(path))
    if isinstance(other, nn.Linear):
        bias = None if other.bias is not None else nn.Parameter(torch.ones(other.out_features))
        other.register_parameter("bias", bias)
    if hasattr(other, "variance_epsilon"):
        other.variance_epsilon = 0.5
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    return _replaced(network, path, other)


def lora(network, path, calls):
    return _adapted(network, path, LoraConfig(target_modules=[path], r=2, init_lora_weights=False), LoraLayer)


def layer_norm_tuning(network, path, calls):
    return _adapted(network, path, LNTuningConfig(target_modules=[path]), LNTuningLayer)


def _adapted(network, path, config, kind):
    module, weights = network.get_submodule(path), {p: p.requires_grad for p in network.parameters()}
    is_container = isinstance(module, (nn.ModuleList, nn.Sequential)) or not list(module.parameters())
    if is_container or (kind is LoraLayer and not isinstance(module, (nn.Linear, nn.Embedding, nn.Conv3d))):
        return None
    if kind is LNTuningLayer and list(module.children()):
        return None
    inject_adapter_in_model(config, network)
    adapted = network.get_submodule(path)
    assert isinstance(adapted, kind)
    if kind is LNTuningLayer:
        with torch.no_grad():
            adapted.ln_tuning_layers["default"].weight.mul_(1.3)

    def undo():
        network.set_submodule(path, module)
        vars(network).pop("peft_config", None)
        for parameter, requires_grad in weights.items():
            parameter.requires_grad_(requires_grad)

    return _changed(undo)


def modules_to_save(network, path, calls):
    module = network.get_submodule(path)
    if isinstance(module, nn.ModuleList):
        return None
    saved = ModulesToSaveWrapper(module, "default")
    saved.enable_adapters(True)
    with torch.no_grad():
        for parameter in saved.modules_to_save["default"].parameters():
            parameter.mul_(1.3)
    return _replaced(network, path, saved)


@contextlib.contextmanager
def _restored(module):
    """What PyTorch and accelerate leave behind when they undo their changes is not what was there."""
    before = [(each, type(each), _copied(vars(each))) for each in module.modules()]
    yield
    for each, kind, state in before:
        each.__class__ = kind
        vars(each).clear()
        vars(each).update(state)


def _copied(state: dict) -> dict:
    return {name: copy.copy(value) if isinstance(value, dict) else value for name, value in state.items()}


def _has_weight(module, ndim=1):
    return module._parameters.get("weight") is not None and module.weight.ndim >= ndim


def parametrised(network, path, calls):
    module = network.get_submodule(path)
    return _parametrised(module, calls) if _has_weight(module) else None


@contextlib.contextmanager
def _parametrised(module, calls):
    with _restored(module):
        parametrize.register_parametrization(module, "weight", Wrapper(nn.Identity(), calls))
        yield


def weight_norm(network, path, calls):
    module = network.get_submodule(path)
    return _weight_norm(module) if _has_weight(module, ndim=2) else None


@contextlib.contextmanager
def _weight_norm(module):
    with _restored(module):
        parametrizations.weight_norm(module)
        with torch.no_grad():
            module.parametrizations.weight.original0.mul_(1.3)
        yield


def pruned(network, path, calls):
    module = network.get_submodule(path)
    return _pruned(module) if _has_weight(module, ndim=2) else None


@contextlib.contextmanager
def _pruned(module):
    with _restored(module):
        prune.random_unstructured(module, "weight", amount=0.5)
        yield


def offloaded(network, path, calls):
    module = network.get_submodule(path)
    return _offloaded(module) if list(module.parameters()) else None


@contextlib.contextmanager
def _offloaded(module):
    with _restored(module):
        cpu_offload(module, execution_device="cpu")
        yield


def other_tensors(network, path, calls):
    module = network.get_submodule(path)
    return _other_tensors(module) if _has_weight(module) else None


@contextlib.contextmanager
def _other_tensors(module):
    """As `torch.func.functional_call` puts them in the parameters' place."""
    with _restored(module):
        for name, parameter in module._parameters.items():
            module._parameters[name] = None if parameter is None else parameter.detach() * 1.3
        yield


CHANGES = [
    forward_hook, hook_that_is_always_called, pre_hook, pre_hook_with_keywords, replaced_forward, called_otherwise, compiled,
    subclass, wrapper, other_weights, lora, layer_norm_tuning, modules_to_save, parametrised, weight_norm, pruned, offloaded, other_tensors,
]  # fmt: skip


def name_of(change) -> str:
    return change.__name__


def paths(walk) -> list[str]:
    return [path for path, _ in walk.model.named_modules() if path]


def outcome(walk):
    try:
        return walk.run()
    except Exception as error:
        return type(error)


def compare(walk, path, change) -> list[torch.Tensor] | type[Exception] | None:
    """Computes in both ways; returns what came out, or None where there is no such change."""
    calls = []
    if (changed := change(walk.model, path, calls)) is None:
        return None
    with changed:
        # PyTorch tries a parametrisation out.
        calls.clear()
        found, count = outcome(walk), len(calls)
        with walk.called():
            expected = outcome(walk)
    assert len(calls) == 2 * count, path
    if isinstance(expected, type):
        assert found is expected, path
    else:
        torch.testing.assert_close(found, expected, **CLOSE, msg=lambda message: f"{path}: {message}")
    return expected


def differ(found, expected: list[torch.Tensor]) -> bool:
    return isinstance(found, type) or any(
        (one - other).abs().max() > 1e-4 for one, other in zip(found, expected, strict=True)
    )


def test_everything_is_read_before(walk):
    assert all(walk.is_read())
    found = walk.run()
    with walk.called():
        torch.testing.assert_close(found, walk.run(), **CLOSE)


@pytest.mark.parametrize("change", [each for each in CHANGES if each is not other_weights], ids=name_of)
def test_every_change_of_every_module_is_noticed(walk, change):
    applied = 0
    for path in paths(walk):
        if (changed := change(walk.model, path, [])) is None:
            continue
        with changed:
            assert not walk.is_read()[walk.part_of(path)], path
        assert all(walk.is_read()), path
        applied += 1
    assert applied


def test_sizes_that_the_configuration_does_not_tell_are_noticed():
    walk = WorldModelWalk()
    layer, block = walk.model.encoder.layer[1].attention, walk.model.predictor.predictor_blocks[1].attn
    for module, name in ((layer, "grid_size"), (layer, "w_dim"), (layer, "attention_head_size"), (block, "head_dim")):
        usual = getattr(module, name)
        setattr(module, name, usual + 2)
        assert walk.is_read() == [module is not layer, module is not block], name
        setattr(module, name, usual)
        assert all(walk.is_read())


def test_methods_that_were_replaced_are_noticed(walk, monkeypatch):
    """A method may be called as well as the module."""
    for path in (
        ("vlm", "vlm.model.language_model") if isinstance(walk, PolicyWalk) else ("encoder.layer.0.attention",)
    ):
        module = walk.model.get_submodule(path)
        name = "generate" if path == "vlm" else "get_position_ids" if path.startswith("encoder") else "_call_impl"
        with monkeypatch.context() as changed:
            changed.setitem(vars(module), name, getattr(module, name))
            assert not all(walk.is_read()), path
    assert all(walk.is_read())


@pytest.mark.slow
@pytest.mark.parametrize("change", [forward_hook, other_weights], ids=name_of)
def test_both_ways_give_the_same(walk, change):
    """And nearly every change of a module that is called matters."""
    before = walk.run()
    found = {path: compare(walk, path, change) for path in paths(walk)}
    called = [path for path in found if not isinstance(walk.model.get_submodule(path), NEVER_CALLED)]
    assert sum(differ(found[path], before) for path in called) > 0.8 * len(called)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=name_of)
def test_both_ways_give_the_same_after_every_change(walk, change):
    """Of one module of each type."""
    before = walk.run()
    of_types = {type(walk.model.get_submodule(path)): path for path in paths(walk)}
    found = [compare(walk, path, change) for path in of_types.values()]
    assert change is offloaded or any(differ(outputs, before) for outputs in found if outputs is not None)
    assert all(walk.is_read())
