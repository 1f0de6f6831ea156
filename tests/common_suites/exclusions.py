# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of transformers' suites that do not apply to our classes, each with the reason."""

_STRICT = "A checkpoint that lacks weights is refused; transformers would complete it with random numbers."
_FLAT = "A processor without image processor: it does that work itself and takes its few options flat, with their defaults."
_STORED = (
    "What decides about the pixels belongs to the checkpoint, not to the call, whatever an image processor calls it."
)

EXCLUSIONS = {
    "TestPolicy::test_model_weights_reload_no_missing_tied_weights": _STRICT,
    "TestPolicy::test_model_base_model_prefix": "A backbone and an expert of equal rank: neither is the base of a head.",
    "TestWorldModel::test_model_weights_reload_no_missing_tied_weights": _STRICT,
    "TestWorldModel::test_model_get_set_embeddings": "It reads pixels: a convolution embeds them, not a table of tokens.",
    "TestPolicyProcessor::test_apply_chat_template_assistant_mask": (
        "Targets come from `__call__(actions=...)`; conversations are for prompts. The option is refused by name."
    ),
    "TestPolicyProcessor::test_call_arguments_default_none": _FLAT,
    "TestPolicyProcessor::test_call_arguments_not_in_processor_kwargs": _FLAT,
    "TestPolicyProcessor::test_flat_kwarg_applied_when_modality_dict_lacks_it": _FLAT,
    "TestPolicyProcessor::test_init_arguments_not_in_processor_kwargs": _STORED,
    "TestWorldModelProcessor::test_call_arguments_not_in_processor_kwargs": _FLAT,
    "TestWorldModelProcessor::test_flat_kwarg_applied_when_modality_dict_lacks_it": _FLAT,
    "TestWorldModelProcessor::test_init_arguments_not_in_processor_kwargs": _STORED,
}
