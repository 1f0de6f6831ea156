# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""The repos of a round: their cards, and a revision of each on the Hub."""

from typing import Any

from ..cards.card_info import Evaluation
from ..evaluation.results import EvaluationResults
from ..hub import AuthorFacts, push_folder, write_card
from ..preferences.preference_dataset import load_preferences
from ..preferences.preference_figures import write_preference_figures
from ..preferences.preference_record import PreferenceRecord
from ..repo_files.fingerprint import artefact_name
from .round_folders import POLICY, WORLD_MODEL, RoundsRun
from .round_stages import EVALUATION


def publish(run: RoundsRun, number: int) -> dict[str, Any]:
    """
    Writes the cards of a round's repos and, with `hub_model_id`, pushes each in one commit with the tag `round-N`.

    Returns:
        `dict`: Name of each repo to its commit.
    """
    config, folder = run.config, run.folder(number)
    facts = {POLICY: _policy_facts(run, number), "preferences": AuthorFacts(base_model=_name(run, number - 1))}
    if config.states_from == "simulator":
        source = f"by the policy of round {number - 1}, whose steps a scripted expert labelled and finished"
        facts["episodes"] = AuthorFacts(others={"source": source})
    if config.refresh_steps:
        facts[WORLD_MODEL] = AuthorFacts(limits=("Its predictor was trained further on the episodes of this round.",))
    write_preference_figures(folder / "preferences", load_preferences(folder / "preferences"))
    for name, fact in facts.items():
        write_card(folder / name, fact)
    if config.hub_model_id is None:
        return {}
    commits = {}
    for name in facts:
        repo = config.hub_model_id if name == POLICY else f"{config.hub_model_id}-{name}"
        message = f"Round {number}"
        commits[repo] = push_folder(folder / name, repo, commit_message=message, tag=f"round-{number}").oid
    return commits


def _policy_facts(run: RoundsRun, number: int) -> AuthorFacts:
    config = run.config
    record = PreferenceRecord.read(run.folder(number) / "preferences")
    evaluation: Evaluation | None = None
    if config.evaluation_episodes:
        evaluation = EvaluationResults.load(run.folder(number) / EVALUATION / POLICY).card_evaluation()
    training = {
        "preference rounds": number,
        "states of each round from": config.states_from,
        "reference": config.reference,
        "steps per round": config.steps,
        "batch size": config.batch_size,
        "learning rate": config.learning_rate,
        "beta": config.beta,
        "pairs of the last round": record.counts.pairs,
        "seed": config.seed,
    }
    return AuthorFacts(
        stage="dpo",
        base_model=artefact_name(config.policy),
        datasets=(artefact_name(config.demonstrations),),
        evaluation=evaluation,
        others={"training": training, "rewards": record.settings.reward_weights},
    )


def _name(run: RoundsRun, number: int) -> str:
    """What the policy of a round is called."""
    if number and run.config.hub_model_id is not None:
        return run.config.hub_model_id
    return artefact_name(run.config.policy) if number == 0 else POLICY


__all__ = ["publish"]
