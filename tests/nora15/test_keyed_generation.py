# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""FAST tokens drawn from random numbers of their own key: stored preference rows are sampled again from it."""

import numpy as np
import pytest
import torch
from torch import nn

from nora15_hf.nora15.presets import tiny_policy

KEYS = [(7, 0, 3), (7, 1, 3), (7, 0, 4), (2**70,)]
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 0}


@pytest.fixture(scope="module")
def policy():
    """An untied head: a tied one makes a network this small repeat its last token."""
    model, processor = tiny_policy(image_size=56, seed=0)
    model.vlm.lm_head = nn.Linear(*reversed(model.vlm.lm_head.weight.shape), bias=False)
    with torch.no_grad():
        model.vlm.lm_head.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
    return model.eval(), processor


@pytest.fixture(scope="module")
def inputs(policy):
    model, processor = policy
    pictures = np.random.default_rng(0).integers(0, 256, (4, 56, 56, 3), dtype=np.uint8)
    texts = ["open the faucet", "press the button, please", "push", "open the faucet"]
    inputs = processor(images=pictures, text=texts)
    # The end marker scores about 3 where the prompts end, so that answers end at different lengths.
    hidden = model.encode_prompt(**inputs).hidden_states.mean((0, 1))
    with torch.no_grad():
        model.vlm.lm_head.weight[processor.tokenizer.eos_token_id] = 3 * hidden / hidden.square().sum()
    return inputs


def test_an_answer_depends_on_its_prompt_and_key_alone(policy, inputs):
    model, _ = policy
    together = model.generate_actions(**inputs, noise_keys=KEYS, **SAMPLING)
    assert len({len(answer) for answer in together}) > 1
    prompt = model.encode_prompt(**inputs)
    rows = torch.tensor([3, 0, 2, 1, 0])
    assert model.generate_actions(prompt=prompt.select(rows), noise_keys=[KEYS[row] for row in rows], **SAMPLING) == [
        together[row] for row in rows
    ]
    for row, key in enumerate(KEYS):
        assert model.generate_actions(prompt=prompt.select(torch.tensor([row])), noise_keys=[key], **SAMPLING) == [
            together[row]
        ]
    torch.manual_seed(0)
    other = model.generate_actions(**inputs, noise_keys=[(*key, 1) for key in KEYS], **SAMPLING)
    assert all(map(lambda one, two: one != two, together, other))


def test_the_first_token_is_drawn_by_hand(policy, inputs):
    """Gumbel noise in the order of action tokens and end marker, wherever the vocabulary has the latter."""
    model, processor = policy
    with torch.no_grad():
        logits = model(**inputs, return_logits=True).logits[:, -1]
    start, end = model.config.action_token_start_id, processor.tokenizer.eos_token_id
    ids = [*range(start, start + model.config.num_action_tokens), end]
    answers = model.generate_actions(**inputs, noise_keys=KEYS, **SAMPLING)
    for answer, scores, key in zip(answers, logits[:, ids].numpy() / 0.7, KEYS, strict=True):
        token = (scores + np.random.default_rng(key).gumbel(size=len(ids))).argmax()
        assert (answer or [len(ids) - 1])[0] == token


def test_layers_that_have_to_be_called_give_the_same_tokens(policy, inputs):
    model, _ = policy
    expected = model.generate_actions(**inputs, noise_keys=KEYS, **SAMPLING)
    handle = model.vlm.model.language_model.layers[0].register_forward_hook(lambda *args: None)
    assert model.generate_actions(**inputs, noise_keys=KEYS, **SAMPLING) == expected
    handle.remove()


def test_greedy_answers_to_an_encoded_prompt(policy, inputs):
    model, _ = policy
    expected = model.generate_actions(**inputs, do_sample=False)
    assert model.generate_actions(prompt=model.encode_prompt(**inputs), do_sample=False) == expected


def test_refusals(policy, inputs):
    model, _ = policy
    prompt = model.encode_prompt(**inputs)
    with pytest.raises(ValueError, match="Pass either the processor's tensors"):
        model.generate_actions(**inputs, prompt=prompt)
    with pytest.raises(ValueError, match="Pass either the processor's tensors"):
        model.generate_actions(do_sample=False)
    with pytest.raises(ValueError, match="accepts neither prompt nor noise_keys"):
        model.generate_actions(prompt=prompt, num_beams=2)
    with pytest.raises(ValueError, match="noise_keys has 3 entries for 4 rows"):
        model.generate_actions(prompt=prompt, noise_keys=KEYS[:3], **SAMPLING)
    with pytest.raises(ValueError, match="do_sample=False"):
        model.generate_actions(prompt=prompt, noise_keys=KEYS, do_sample=False)
    with pytest.raises(ValueError, match="left-padded"):
        model.encode_prompt(**{**inputs, "attention_mask": inputs["attention_mask"].flip(-1)})
