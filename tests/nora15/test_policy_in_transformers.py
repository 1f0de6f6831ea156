# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What users of transformers and PEFT expect of a model with tokens: each option does what it does in transformers' models."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoModel, GenerationConfig

from nora15_hf.nora15.presets import tiny_policy

TEXT = "open the faucet"


@pytest.fixture(scope="module")
def policy():
    return tiny_policy((TEXT,), image_size=56)


@pytest.fixture
def fresh():
    return tiny_policy((TEXT,), image_size=56)[0]


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def prompt(policy, image):
    return policy[1](images=image, text=TEXT)


@pytest.fixture(scope="module")
def batch(policy, image):
    inputs = policy[1](images=[image] * 2, text=[TEXT] * 2, actions=np.zeros((2, 5, 4), np.float32))
    noise = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    return {**inputs, "noise": noise, "timestep": torch.tensor([0.3, 0.8])}


class TestTokens:
    @pytest.mark.parametrize("more", [0, 64])
    def test_embeddings_are_resized_everywhere(self, fresh, prompt, tmp_path, more):
        before = fresh(**prompt, return_logits=True).logits
        size = fresh.config.get_text_config().vocab_size
        fresh.resize_token_embeddings(size + more)
        assert fresh.vlm.lm_head.weight is fresh.get_input_embeddings().weight
        assert fresh.vlm.lm_head.out_features == len(fresh.get_input_embeddings().weight) == size + more
        fresh.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert loaded.config.get_text_config().vocab_size == size + more
        torch.testing.assert_close(loaded(**prompt, return_logits=True).logits[..., :size], before)

    def test_action_tokens_are_not_cut_off(self, fresh):
        size = fresh.config.action_token_start_id + fresh.config.num_action_tokens
        with pytest.raises(ValueError, match=f"new_num_tokens={size - 1} would cut off FAST tokens"):
            fresh.resize_token_embeddings(size - 1)

    def test_generation_config_is_saved_and_loaded(self, fresh, tmp_path):
        fresh.generation_config.eos_token_id = [1, 2]
        fresh.save_pretrained(tmp_path)
        assert AutoModel.from_pretrained(tmp_path).generation_config.eos_token_id == [1, 2]
        given = AutoModel.from_pretrained(tmp_path, generation_config=GenerationConfig(eos_token_id=7))
        assert given.generation_config.eos_token_id == 7
        # A repo of an earlier version.
        (tmp_path / "generation_config.json").unlink()
        assert (
            AutoModel.from_pretrained(tmp_path).generation_config.eos_token_id
            == fresh.config.get_text_config().eos_token_id
        )

    def test_generate_heeds_the_policys_configuration(self, fresh, policy, prompt):
        options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
        tokens = policy[0].generate(**prompt, **options)
        is_image = (prompt["input_ids"] == policy[0].config.vlm_config.image_token_id).int()
        expected = policy[0].vlm.generate(**prompt, mm_token_type_ids=is_image, **options)
        assert torch.equal(tokens, expected)
        fresh.generation_config = GenerationConfig(max_new_tokens=2, eos_token_id=None, pad_token_id=0)
        assert torch.equal(fresh.generate(**prompt), tokens[:, :-1])

    def test_lora_for_causal_language_models(self, fresh, prompt, batch, tmp_path):
        adapted = get_peft_model(
            fresh, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
        )
        loss = adapted(**batch).loss
        loss.backward()
        assert (
            adapted.generate(**prompt, max_new_tokens=2, eos_token_id=None).shape[1]
            == prompt["input_ids"].shape[1] + 2
        )
        adapted.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(tiny_policy((TEXT,), image_size=56)[0], tmp_path)
        torch.testing.assert_close(loaded(**batch).loss, loss)


class TestOutputs:
    def test_hidden_states(self, policy, batch):
        model = policy[0]
        with torch.no_grad():
            plain = model(**batch)
            output = model(**batch, output_hidden_states=True)
        torch.testing.assert_close(output.loss, plain.loss)
        assert plain.hidden_states is None
        assert plain.vlm_hidden_states is None
        assert {state.shape for state in output.hidden_states} == {(2, 5, 128)}
        assert {state.shape for state in output.vlm_hidden_states} == {(*batch["input_ids"].shape, 128)}
        torch.testing.assert_close(model.action_out_proj(output.hidden_states[-1]), output.velocity)
        reference = model.vlm(
            **{name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")},
            mm_token_type_ids=(batch["input_ids"] == model.config.vlm_config.image_token_id).int(),
            output_hidden_states=True,
        ).hidden_states
        for found, expected in zip(output.vlm_hidden_states, reference, strict=True):
            torch.testing.assert_close(found, expected)

    def test_chosen_hidden_states_and_none_for_the_others(self, policy, batch):
        every = policy[0](**batch, output_hidden_states=True)
        chosen = policy[0](**batch, output_hidden_states=[0, -1])
        for name in ("hidden_states", "vlm_hidden_states"):
            assert [state is not None for state in chosen[name]] == [True, False, False, False, True]
            torch.testing.assert_close(chosen[name][-1], every[name][-1])

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_attentions_and_what_they_give(self, policy, batch, implementation):
        model = policy[0]
        try:
            model.set_attn_implementation(implementation)
            output = model(**batch, output_attentions=True)
            torch.testing.assert_close(output.loss, model(**batch).loss)
        finally:
            model.set_attn_implementation("sdpa")
        length = batch["input_ids"].shape[1]
        assert {weights.shape for weights in output.attentions} == {(2, 4, 5, length + 5)}
        for weights in output.attentions:
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 5))
            assert (weights[..., :length][(~output.prefix.mask)[:, None, None].expand(-1, 4, 5, -1)] == 0).all()

    def test_the_fast_path_stays_open(self, fresh, batch):
        """transformers' own recording leaves hooks, with which weights can no longer be read."""
        fresh(**batch, output_hidden_states=True, output_attentions=True)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in fresh.modules())

    def test_attentions_need_actions(self, policy, prompt):
        with pytest.raises(ValueError, match="output_attentions=True returns the weights of the action expert"):
            policy[0](**prompt, return_logits=True, output_attentions=True)

    def test_tuple(self, policy, batch):
        output = policy[0](**batch)
        for found, expected in zip(policy[0](**batch, return_dict=False), output.to_tuple(), strict=True):
            if torch.is_tensor(found):
                torch.testing.assert_close(found, expected)

    def test_embeddings_in_place_of_ids(self, policy, batch):
        model = policy[0]
        others = {name: value for name, value in batch.items() if name != "input_ids"}
        embeds = model.get_input_embeddings()(batch["input_ids"])
        expected, output = model(**batch), model(**others, inputs_embeds=embeds)
        for name in ("loss", "lm_loss", "velocity"):
            torch.testing.assert_close(output[name], expected[name])
        assert torch.equal(output.prefix.mask, expected.prefix.mask)
        with pytest.raises(ValueError, match="inputs_embeds in place of input_ids"):
            model(**batch, inputs_embeds=embeds)


class TestConversations:
    @pytest.mark.parametrize("source", ["image", "path", "PIL"])
    def test_tokenized_conversation_is_the_processors_prompt(self, policy, image, prompt, tmp_path, source):
        part = {"image": image}
        if source == "PIL":
            part = {"image": Image.fromarray(image)}
        elif source == "path":
            Image.fromarray(image).save(tmp_path / "view.png")
            part = {"path": str(tmp_path / "view.png")}
        talk = [{"role": "user", "content": [{"type": "image", **part}, {"type": "text", "text": TEXT}]}]
        inputs = policy[1].apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True)
        assert inputs.keys() == prompt.keys()
        assert all(torch.equal(inputs[name], prompt[name]) for name in prompt)
        ids = policy[1].apply_chat_template([talk, talk], add_generation_prompt=True, tokenize=True)
        assert torch.equal(ids, prompt["input_ids"].expand(2, -1))

    def test_bad_conversations(self, policy):
        talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TEXT}]}]
        with pytest.raises(ValueError, match=r"renders 1 image\(s\), but the conversation has 0"):
            policy[1].apply_chat_template(talk, tokenize=True)
        with pytest.raises(ValueError, match=r"truncation.*would have no effect"):
            policy[1].apply_chat_template(talk, tokenize=True, truncation=True)


def test_original_format_is_refused(fresh, tmp_path):
    fresh.save_pretrained(tmp_path, save_original_format=False)
    index = json.loads((tmp_path / "config.json").read_text())
    assert index["model_type"] == "nora15"
    with pytest.raises(ValueError, match="save_original_format=True"):
        fresh.save_pretrained(tmp_path, save_original_format=True)
