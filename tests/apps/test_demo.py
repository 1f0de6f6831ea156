# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What `nora15 demo` does behind its page: chunks are drawn, imagined, ranked, and executed in a simulator."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.two_camera_arm import CORNERS, METRES_PER_ACTION, TASKS, in_the_table
from nora15_hf.apps.demo_simulator import DemoSimulator, noise_key
from nora15_hf.apps.page_parts import BESIDE_PICTURE
from nora15_hf.apps.ranked_policy import Proposal, RankedPolicy
from nora15_hf.apps.shown_proposal import (
    drawn_candidates,
    film_html,
    outcome,
    proposal_html,
    read_state,
    sentence,
    told,
)
from nora15_hf.clips import ClipConventions
from nora15_hf.control import predict_chunks
from nora15_hf.data import LeRobotDataset
from nora15_hf.evaluation.demonstrations import record_demonstrations
from nora15_hf.simulation.simulation_pool import LostEnvironmentError, SimulationPool
from nora15_hf.trainers import tiny_policy_for
from nora15_hf.vjepa2_ac import tiny_world_model


@pytest.fixture(scope="module")
def pool():
    with in_the_table(), SimulationPool("arm", num_workers=1, num_slots=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def simulator(pool):
    return DemoSimulator(pool)


@pytest.fixture(scope="module")
def models(pool, tmp_path_factory):
    """Arguments of a [`RankedPolicy`]: the policy sees both cameras, the world model the second."""
    root = tmp_path_factory.mktemp("demo") / "demonstrations"
    record_demonstrations(root, list(TASKS), 1, pool=pool, progress=False)
    dataset = LeRobotDataset(root, chunk_size=5, dataset_key="arm")
    policy, processor = tiny_policy_for(dataset, [task.instruction for task in TASKS.values()], image_size=56)
    judged = LeRobotDataset(root, chunk_size=5, dataset_key="arm", image_keys=["observation.images.wrist"])
    torch.manual_seed(0)
    world_model, world_model_processor = tiny_world_model(image_size=56, action_dim=3)
    # Without this it imagines that nothing changes.
    with torch.no_grad():
        for parameter in world_model.predictor.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    conventions = ClipConventions.of_policy(judged, processor, "arm")
    return policy, processor, world_model, world_model_processor, conventions


@pytest.fixture(scope="module")
def ranked(models):
    return RankedPolicy(*models)


def test_chunks_are_the_policys_and_ranked_by_the_last_imagined_distance(ranked, models, simulator):
    policy, processor, world_model, world_model_processor, _ = models
    assert ranked.cameras == ("front", "wrist")
    assert ranked.judged_camera == "wrist"
    seen = simulator.look(simulator.beginning("left", 3))
    goal = simulator.goal_picture("left", 3, ranked.judged_camera)
    proposal = ranked.propose(seen, goal, 4, (3, 0, 1))
    asked = ([list(seen.images.values())], [seen.instruction], [(3, 0, 1)])
    normalised, expected = (
        predict_chunks(policy, processor, *asked, num_candidates=4, unnormalize=unnormalize)
        for unnormalize in (False, True)
    )
    np.testing.assert_allclose(proposal.chunks, expected[0], atol=1e-5)
    with torch.no_grad():
        now, wanted = (
            world_model.encode(world_model_processor(image[None, None])["pixel_values"])
            for image in (seen.images["wrist"], goal)
        )
        imagined = world_model.rollout(now, torch.from_numpy(normalised))
        distances = world_model.goal_energy(imagined, wanted)[0]
    np.testing.assert_allclose(proposal.distances[:, -1], distances, atol=1e-5)
    assert proposal.distances.shape == (4, 5)
    assert proposal.ranking == distances.argsort().tolist()
    assert len(set(proposal.distances[:, -1])) == 4
    np.testing.assert_array_equal(proposal.best, proposal.chunks[proposal.ranking[0]])
    assert ranked.propose(seen, seen.images["wrist"], 2, (0,)).distance_now == 0
    unranked = ranked.propose(seen, None, 4, (3, 0, 1))
    assert (unranked.distances, unranked.ranking) == (None, [0, 1, 2, 3])


def test_the_best_is_executed_and_the_film_leads_to_its_state(ranked, simulator):
    beginning = simulator.beginning("right", 5)
    goal = simulator.goal_picture("right", 5, "wrist")
    films = list(simulator.drive(ranked, beginning, "move", goal, num_candidates=3, num_chunks=2, draw=7))
    assert [len(film.frames) for film in films] == [6, 11]
    film = films[-1]
    assert (film.success, film.ended) == (False, False)
    first = simulator.look(beginning)
    best = ranked.propose(replace(first, instruction="move"), goal, 3, noise_key(beginning, 7)).best
    np.testing.assert_allclose(film.state.executed[:5], best, atol=1e-5)
    # The simulator can be brought back to where the film ends, whoever used it meanwhile.
    simulator.look(simulator.beginning("left", 0))
    again = simulator.look(film.state)
    np.testing.assert_array_equal(again.first_image, film.frames[-1])
    np.testing.assert_array_equal(again.state, film.observation.state)
    assert outcome(film, 5) == "Not done yet after 10 steps, 5 of them in this film."
    assert "data:video/mp4;base64,AAAA" in film_html(film, simulator.spec.control_rate)


def test_the_film_ends_with_success(ranked, simulator, monkeypatch):
    def one_step(ranked, observation, *_):
        way = (np.array(CORNERS["right"]) - observation.state[:2]) / METRES_PER_ACTION
        return Proposal(np.append(way.clip(-1, 1), 1)[None, None])

    monkeypatch.setattr(RankedPolicy, "propose", one_step)
    *_, film = simulator.drive(ranked, simulator.beginning("right", 5), "move", None, num_candidates=1, num_chunks=40)
    assert film.success
    assert len(film.frames) == len(film.state.executed) + 1 < 40
    assert outcome(film, 0).startswith("**Success** after")


def test_goals_come_from_an_expert_that_succeeds(simulator):
    assert simulator.goal_picture("left", 0, "front").shape == (56, 56, 3)
    with SimulationPool("arm", num_workers=1, num_slots=1, has_expert=False) as pool:
        assert DemoSimulator(pool).goal_picture("left", 0, "front") is None
    with SimulationPool("arm", num_workers=1, num_slots=1, max_steps=2) as pool:
        assert DemoSimulator(pool).goal_picture("left", 0, "front") is None


def test_a_simulator_that_fails_is_told(ranked, simulator, monkeypatch):
    monkeypatch.setattr(RankedPolicy, "propose", lambda *arguments: Proposal(np.zeros((1, 5, 2), np.float32)))
    with pytest.raises(LostEnvironmentError, match="An environment failed"):
        list(simulator.drive(ranked, simulator.beginning("left", 0), "move", None, num_candidates=1, num_chunks=1))


def test_world_models_of_other_actions_are_refused(models):
    *policy, world_model, world_model_processor, conventions = models
    metric = ClipConventions(
        dataset="d", dataset_fingerprint="f", image_key="i", action_key=None, state_key="observation.state"
    )
    with pytest.raises(ValueError, match="pose differences in metres and radians"):
        RankedPolicy(*policy, world_model, world_model_processor, metric)
    clipped = replace(conventions, clip_actions=not conventions.clip_actions)
    with pytest.raises(ValueError, match="normalization"):
        RankedPolicy(*policy, world_model, world_model_processor, clipped)


def test_best_and_worst_stand_out():
    chunks = np.arange(3 * 2 * 3, dtype=np.float32).reshape(3, 2, 3)
    distances = np.array([[0.5, 0.4], [0.5, 0.2], [0.5, 0.3]], dtype=np.float32)
    proposal = Proposal(chunks, distances, 0.5)
    drawn = drawn_candidates(proposal)
    assert [(chunk.name, chunk.mark) for chunk in drawn] == [("worst", "1"), ("others", "3"), ("best", "2")]
    assert {chunk.name for chunk in drawn_candidates(Proposal(chunks))} == {"others"}
    image = np.zeros((20, 30, 3), np.uint8)
    picture, imagined, dimensions, table = proposal_html(proposal, ["x", "y", "z"], [image])
    assert BESIDE_PICTURE in picture
    assert all("<img src=" in part for part in (imagined, dimensions))
    assert table.index("1. chunk 2") < table.index("2. chunk 3") < table.index("3. chunk 1")
    assert "-0.2000" in table
    assert "staying where it is has -0.5000" in table
    assert "Chunk 2 is ranked first: its reward is 0.2 above" in sentence(proposal)
    assert proposal_html(Proposal(chunks), ["x", "y", "z"], [image])[1::2] == ("", "")
    assert "Without a goal they are not ranked" in sentence(Proposal(chunks))


def test_what_a_visitor_types():
    assert told(" open it ") == "open it"
    with pytest.raises(ValueError, match="instruction is empty"):
        told("  ")
    np.testing.assert_array_equal(read_state("1, 2.5 -3", 3), np.float32([1, 2.5, -3]))
    for text in ("1, 2", "1, 2, x", "1, 2, nan", ""):
        with pytest.raises(ValueError, match="is not 3 numbers"):
            read_state(text, 3)
