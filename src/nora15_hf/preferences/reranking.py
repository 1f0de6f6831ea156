# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Other pairs from the same candidates: rewards that are stored with a preference set, weighted anew."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from datasets import Dataset

from .dataset_builder import NoPairsError
from .pairs import select_pairs
from .preference_dataset import pairs_fingerprint
from .preference_record import PreferenceCounts, preference_info, with_preference_info
from .reward_decisions import DecisionSums, RewardDecisions
from .rewards import combined_scores


def rerank_preferences(rows: Dataset, weights: Mapping[str, float], *, standardize: bool = False) -> Dataset:
    """
    Pairs the candidates of a preference set by other weights of its rewards; nothing is sampled or scored again.

    A set that was built with several rewards can so be compared with each of them alone, and with those weights that give all an
    equal say.

    Args:
        rows ([`~datasets.Dataset`]): Of [`load_preferences`].
        weights (`Mapping[str, float]`): Weight of each reward that counts, by the names in the column `rewards`.
        standardize (`bool`, *optional*, defaults to `False`): See [`WeightedReward`].

    Returns:
        [`~datasets.Dataset`] with the same columns; `reward`, `chosen`, `rejected` and `margin` are new, and so is what its record
        says about weights, counts and decisions. States at which the set has no pair have none here either.

    Raises:
        ValueError: Rows whose origin is not known or that have no rewards, no weight, or one of a reward that they do not have.
        NoPairsError: Equal rewards at all states.

    Example:

    ```python
    >>> rows = load_preferences("outputs/quickstart/preferences")  # doctest: +SKIP
    >>> equal_say = rerank_preferences(rows, {"world_model": 1.0, "ground_truth": 1.0}, standardize=True)  # doctest: +SKIP
    ```
    """
    info = preference_info(rows)
    if info is None or info.record.settings.pairs_from is not None:
        raise ValueError("rows must be those of a preference set with rewards. Read them with load_preferences.")
    record, settings = info.record, info.record.settings
    unknown = sorted(weights.keys() - settings.reward_weights.keys())
    if unknown or not weights:
        raise ValueError(
            f"weights={dict(weights)} must give weights of rewards that the set was built with: "
            f"{', '.join(settings.reward_weights)}."
        )
    # Several pairs of a state hold the same candidates.
    _, first_of_state = np.unique(rows["state_index"], return_index=True)
    states = rows.select(np.sort(first_of_state))
    scores = {name: torch.tensor([each[name] for each in states["rewards"]]) for name in weights}
    candidates = np.array(states["candidates"], dtype=np.float32)
    reward = combined_scores(scores, weights, standardize)

    def pairs(of: torch.Tensor):
        return select_pairs(
            of.numpy(),
            candidates,
            pairing=settings.pairing,
            min_margin=settings.min_margin,
            num_negatives=settings.num_noisy_negatives,
            seed=settings.seed,
            indices=states["state_index"],
        )

    selection = pairs(reward)
    kept = np.flatnonzero(selection.kept)
    if len(kept) == 0:
        raise NoPairsError(
            f"weights={dict(weights)} leave no pair at {len(states)} states: the rewards are equal there.",
            "Choose other weights.",
        )
    columns = {
        "reward": reward.numpy()[selection.state[kept]],
        "chosen": candidates[selection.state[kept], selection.chosen[kept]],
        "rejected": candidates[selection.state[kept], selection.rejected[kept]],
        "margin": selection.margin[kept],
    }
    found = states.select(selection.state[kept]).remove_columns(list(columns))
    for name, column in columns.items():
        found = found.add_column(name, column.tolist(), feature=rows.features[name])
    found = found.select_columns(rows.column_names)
    chosen_rewards = {
        name: reward | {"weight": weights[name]}
        for name, reward in settings.reward["rewards"].items()
        if name in weights
    }
    sums = DecisionSums.of_batch(scores, weights, standardize, selection, pairs)
    record = replace(
        record,
        settings=replace(settings, reward={"standardize": standardize, "rewards": chosen_rewards}),
        provenance=record.provenance | {"reranked_from": pairs_fingerprint(rows)},
        shards={},
        counts=PreferenceCounts(
            states=len(states),
            ties=int(selection.is_tie.sum()),
            too_close=int(selection.is_close.sum()),
            pairs=len(kept),
        ),
        decisions=RewardDecisions.of(sums, weights, standardize),
    )
    return with_preference_info(found, record, info.sampled_by_policy)


__all__ = ["rerank_preferences"]
