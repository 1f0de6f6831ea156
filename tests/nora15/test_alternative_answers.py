# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Several answers and several chunks per prompt in one pass of the policy equal separate passes."""

import numpy as np
import pytest
import torch

from nora15_hf.nora15.alternative_answers import answer_log_probs, append_answers
from nora15_hf.nora15.presets import tiny_policy

ANSWERS = [[[3, 5, 7], [11, 2]], [[9], [4, 4, 8, 1]]]  # FAST tokens: row, answer
INSTRUCTIONS = ["open the faucet", "push the button that lies far away"]


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def tiny(request):
    policy, processor = tiny_policy(image_size=56)
    policy.set_attn_implementation(request.param)
    return policy, processor


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), np.uint8))


def rows_of(processor, images, answers_per_row):
    """Prompts left-padded, each followed by its answers."""
    prompts = processor(images=images, text=INSTRUCTIONS)
    start = processor.first_action_token_id
    answers = [[[token + start for token in answer] for answer in row] for row in answers_per_row]
    return {**prompts, **append_answers(prompts, answers)}


def test_each_answer_is_scored_as_if_it_were_alone(tiny, images):
    policy, processor = tiny
    together = rows_of(processor, images, ANSWERS)
    log_probs = policy(**together).token_log_probs
    assert (log_probs[together["answer_index"] == 0] == 0).all()
    sums = answer_log_probs(log_probs, together["answer_index"], 2)
    torch.testing.assert_close(sums.sum(), log_probs.sum())
    torch.testing.assert_close(sums[1, 0], log_probs[1, together["answer_index"][1] == 1].sum())
    for number in range(2):
        alone = rows_of(processor, images, [[answers[number]] for answers in ANSWERS])
        alone.pop("answer_index")
        labels = alone["labels"]
        logits = policy(**{**alone, "labels": None}, return_logits=True).logits.log_softmax(-1)
        for row in range(2):
            columns = (labels[row] != -100).nonzero().flatten()
            expected = logits[row, columns - 1, labels[row, columns]]
            found = log_probs[row, together["answer_index"][row] == number + 1]
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_the_expert_does_not_see_the_answers(tiny, images):
    policy, processor = tiny
    generator = torch.Generator().manual_seed(0)
    chunks, noise = torch.randn(2, 2, 3, 5, 4, generator=generator)
    flow = {"actions": chunks, "noise": noise, "timestep": torch.rand(2, 3, generator=generator)}
    velocity = policy(**rows_of(processor, images, ANSWERS), **flow).velocity
    assert velocity.shape == (2, 3, 5, 4)
    prompt = processor(images=images, text=INSTRUCTIONS)
    torch.testing.assert_close(velocity, policy(**prompt, **flow).velocity, atol=2e-5, rtol=0)


def test_several_chunks_equal_one_at_a_time(tiny, images):
    policy, processor = tiny
    generator = torch.Generator().manual_seed(0)
    chunks, noise = torch.randn(2, 2, 3, 5, 4, generator=generator)
    timestep = torch.rand(2, 3, generator=generator)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    prefix = policy.encode_prefix(**processor(images=images, text=INSTRUCTIONS))
    together = policy(prefix=prefix, actions=chunks, noise=noise, timestep=timestep, action_mask=mask)
    assert together.prefix is prefix
    losses = []
    for chunk in range(3):
        alone = policy(
            prefix=prefix,
            actions=chunks[:, chunk],
            noise=noise[:, chunk],
            timestep=timestep[:, chunk],
            action_mask=mask,
        )
        torch.testing.assert_close(together.velocity[:, chunk], alone.velocity, atol=2e-5, rtol=0)
        losses.append(alone.flow_loss)
    torch.testing.assert_close(together.flow_loss, torch.stack(losses).mean())
    drawn = policy(prefix=prefix, actions=chunks)
    assert drawn.velocity.shape == chunks.shape


def test_refusals(tiny, images):
    policy, processor = tiny
    prompt = processor(images=images, text=INSTRUCTIONS)
    prefix = policy.encode_prefix(**prompt)
    chunks = torch.zeros(2, 3, 5, 4)
    with pytest.raises(ValueError, match="Pass either the processor's tensors"):
        policy(**prompt, prefix=prefix, actions=chunks)
    with pytest.raises(ValueError, match="need a backbone pass, which prefix replaces"):
        policy(prefix=prefix, actions=chunks, labels=prompt["input_ids"])
    with pytest.raises(ValueError, match=r"expected \(batch, \[chunks,\] chunk_size, action_dim\)"):
        policy(prefix=prefix, actions=chunks[..., :3])
    with pytest.raises(ValueError, match="both must have the same shape"):
        policy(prefix=prefix, actions=chunks, noise=chunks[:, :1], timestep=torch.zeros(2, 1))
