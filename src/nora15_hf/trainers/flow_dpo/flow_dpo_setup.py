# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What flow DPO does to the policy before training: what learns, in which precision, and against which reference."""

import copy
from collections.abc import Callable
from inspect import getclosurevars
from types import FunctionType, MethodType

import torch
from accelerate.utils import parse_flag_from_env
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper

from ...nora15.modeling_nora15 import Nora15ForActionPrediction
from .flow_dpo_config import FlowDPOConfig


def freeze_backbone(
    policy: Nora15ForActionPrediction, ref_model: Nora15ForActionPrediction | None, has_adapters: bool
) -> None:
    """Stops gradients to the backbone, and checks that nothing needs them and that the reference has the same backbone."""
    if has_adapters:
        refuse_backbone_adapters(policy)
    policy.vlm.requires_grad_(False)
    if ref_model is not None:
        own, given = policy.vlm.state_dict(), ref_model.vlm.state_dict()
        if not all(torch.equal(own[name], given[name]) for name in own):
            raise ValueError(
                "freeze_backbone=True encodes the prompt once for policy and reference, but the backbones of model "
                "and ref_model differ. Set freeze_backbone=False, or omit ref_model."
            )


def refuse_backbone_adapters(policy: Nora15ForActionPrediction) -> None:
    """Raises when something of a frozen backbone learns."""
    adapted = [name for name, p in policy.vlm.named_parameters() if p.requires_grad]
    if adapted:
        raise ValueError(
            f"freeze_backbone=True, but {len(adapted)} adapter parameters of the backbone are trained, for example "
            f"{adapted[0]!r}. Set freeze_backbone=False or put adapters on action_expert only."
        )


def initial_reference(policy: Nora15ForActionPrediction, args: FlowDPOConfig) -> Nora15ForActionPrediction:
    """
    A frozen copy of the current policy, which is removed before training if its values are precomputed.

    Raises:
        ValueError: Another library has replaced the policy's `forward` by a function that a copy would share with it.
    """
    replaced = vars(policy).get("forward")
    if isinstance(replaced, FunctionType | MethodType) and any(
        isinstance(held, MethodType) and held.__self__ is policy
        for held in getclosurevars(replaced).nonlocals.values()
    ):
        raise ValueError(
            "Another library has replaced the policy's forward by a function that calls this very policy: a copy as the reference "
            "would compute with the weights that are trained. Save the policy and load it anew, or pass ref_model."
        )
    # FSDP and DeepSpeed shard every model by itself, so that two cannot share a part.
    is_sharded = bool(args.fsdp or args.deepspeed) or any(
        parse_flag_from_env(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED")
    )
    if args.precompute_ref_log_probs and not is_sharded:
        # All parameters shared: another object only because the parent asks for one.
        return copy.copy(policy)
    # A frozen backbone is the reference's own too: the copy shares its memory.
    shared = {id(policy.vlm): policy.vlm} if args.freeze_backbone and not is_sharded else {}
    return copy.deepcopy(policy, shared).requires_grad_(False)


def restore_forward(policy: Nora15ForActionPrediction, forward: Callable | None) -> None:
    """
    Takes off the fused head that TRL's trainer puts on, which flow matching has no use for. It holds the policy itself, so that
    copies of the policy would compute with its weights, and sampling would take it for a policy of another kind.

    Args:
        policy ([`Nora15ForActionPrediction`]): After the parent's `__init__`.
        forward (`Callable`, *optional*): The `forward` of its own that the instance had before.
    """
    if forward is None:
        vars(policy).pop("forward", None)
    else:
        policy.forward = forward


def restore_float32(model: PeftModel, adapters: dict[str, torch.Tensor]) -> None:
    """Undoes the parent's rounding to bfloat16 of what learns on a quantised policy: masters are float32 here."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = adapters[name] if name in adapters else parameter.data.float()
    if not adapters:
        # Fresh copies of whole modules were rounded; fresh LoRA matrices have no earlier value to return to.
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                module.modules_to_save["default"].load_state_dict(module.original_module.state_dict())


__all__ = [
    "freeze_backbone",
    "initial_reference",
    "refuse_backbone_adapters",
    "restore_float32",
    "restore_forward",
]
