# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What follows where two artefacts meet: which items have to agree at which junction, and what is said when they do not."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .comparison import Agreement, Item, compare
from .embodiment import Embodiment

logger = logging.getLogger(__name__)


class Consequence(StrEnum):
    """What happens with an item that does not agree."""

    REFUSE = "refuse"
    """An error."""
    ARRANGE = "arrange"
    """The caller reorders the second side to match the first; logged at level INFO."""
    WARN = "warn"
    """A warning."""
    NOTE = "note"
    """Told at level INFO."""


R, A, W, N = Consequence.REFUSE, Consequence.ARRANGE, Consequence.WARN, Consequence.NOTE


@dataclass(frozen=True)
class Junction:
    """
    A place where two artefacts meet.

    Attributes:
        name (`str`): Of the place, as in "to train on".
        items (`Mapping[str, tuple[Consequence, Consequence, Consequence]]`):
            The items that matter there, with what follows when they are reordered, different, and not known to one side. Of
            cameras that the second side has more of, the others are left out with a warning where their order may differ.
        remedy (`str`): What a user can do.
    """

    name: str
    items: Mapping[str, tuple[Consequence, Consequence, Consequence]]
    remedy: str


# Of one robot's data.
_DATA = {
    "cameras": (A, R, W),
    "camera_roles": (R, R, N),
    "picture_shapes": (W, W, N),
    "action_dim": (R, R, N),
    "action_names": (A, R, N),
    "action_units": (R, R, N),
    "delta_actions": (R, R, N),
    "gripper": (R, R, N),
    "control_rate": (R, R, N),
}
_STATE = {"state_dim": (R, R, N), "state_names": (A, R, N), "state_units": (R, R, N)}
STATE_ITEMS = (*_STATE, "state_statistics")
"""Items that do not matter to a policy that reads no state."""
ACTION_ITEMS = ("action_dim", "action_names", "action_units", "delta_actions", "gripper")
"""Items that do not matter where actions are turned into others first."""
# What numbers a model sees for the same motion.
_NORMALIZED = {"normalization": (R, R, W), "action_statistics": (R, R, W)}
NORMALIZATION_ITEMS = tuple(_NORMALIZED)
"""Items that decide what numbers a model sees for the same motion."""
_FIXED_ORDER = {"action_names": (R, R, N), "state_names": (R, R, N)}


MIXTURE = Junction(
    "the members of a mixture",
    # What states are only matters to a policy that reads them. Rates have an argument of their own.
    {name: use for name, use in _DATA.items() if name != "control_rate"}
    | {"chunk_size": (R, R, N), "state_names": (A, W, N), "state_units": (W, W, N)},
    "Open the datasets with the same camera names (image_keys={name: feature}) and dimension names (action_names, "
    "state_names), or train a policy on each separately.",
)
FINE_TUNING = Junction(
    "a dataset and the policy that is trained on it",
    _DATA | _STATE | {"chunk_size": (R, R, N)},
    "Open the dataset with image_keys={name: feature} and action_names or state_names that identify them, or under a "
    "separate dataset_key if it is another robot or another way of recording.",
)
EVALUATION = Junction(
    "a policy and the simulator that it is evaluated in",
    _DATA | _STATE | _FIXED_ORDER,
    "Evaluate with the recorded settings, name the dataset_key of the policy that belongs to this simulator, or record "
    "demonstrations in it.",
)
CONTROL = Junction(
    "a policy and the robot that it controls",
    _DATA | _STATE | _FIXED_ORDER,
    "Name the cameras in the observation as in training, or the dataset_key of the policy that belongs to this robot.",
)
CHECKING = Junction(
    "a policy and the dataset that it is checked against",
    dict.fromkeys(_DATA | _STATE, (A, W, N)) | {"cameras": (A, R, N)},
    "Open the dataset with other keys, or use the policy that was trained on such data.",
)
WORLD_MODEL = Junction(
    "a policy and the world model that evaluates its actions",
    _DATA | _FIXED_ORDER | _NORMALIZED,
    "Train the world model for this policy (nora15 world-model --policy ...), or use the one that was trained for it.",
)
IMAGINATION = Junction(
    "a world model and the dataset that it imagines",
    _DATA | {"action_names": (R, R, N)},
    "Use the dataset that the world model was trained on, or one that was recorded like it.",
)
PREFERENCES = Junction(
    "a policy and the preference set that it is tuned on",
    dict.fromkeys((*_DATA, *_STATE, "chunk_size", "image_size"), (R, R, N))
    | _NORMALIZED
    | {"picture_shapes": (W, W, N), "state_statistics": (R, R, W), "instruction_format": (W, W, N)},
    "Tune the policy that the candidates were sampled from, or build the preference set again with this one.",
)
JUNCTIONS = (MIXTURE, FINE_TUNING, EVALUATION, CONTROL, CHECKING, WORLD_MODEL, IMAGINATION, PREFERENCES)


class EmbodimentError(ValueError):
    """Two artefacts that do not belong together; the message lists every item that differs."""


def check_junction(
    junction: Junction,
    first: Embodiment,
    second: Embodiment,
    *,
    names: tuple[str, str],
    leave_out: Collection[str] = (),
    arranged: bool = False,
    found: Sequence[str] = (),
) -> list[str]:
    """
    Compares two artefacts and says, item by item, what differs and what one of them does not know.

    Args:
        junction ([`Junction`]): Where they meet.
        first ([`Embodiment`]), second ([`Embodiment`]): What is asked for, and what is offered.
        names (`tuple[str, str]`): What the two are called in messages.
        leave_out (`Collection[str]`, *optional*): Items that do not matter to the caller, as the state to a policy that reads
            none.
        arranged (`bool`, *optional*, defaults to `False`): Whether the caller brings cameras and dimensions into the order
            of `first`. If not, another order is refused, too.
        found (`Sequence[str]`, *optional*): Differences that the caller knows besides; they are refused with the others.

    Returns:
        `list[str]`: The warnings, which have also been logged as one.

    Raises:
        EmbodimentError: Items that must agree differ.
    """
    told: dict[Consequence, list[str]] = {consequence: [] for consequence in Consequence}
    told[Consequence.REFUSE] += found
    for item in compare(first, second):
        if item.name not in junction.items or item.name in leave_out or item.agreement is Agreement.EQUAL:
            continue
        consequence = consequence_of(junction, item)
        if consequence is Consequence.ARRANGE and not arranged:
            consequence = Consequence.REFUSE
        elif consequence is Consequence.ARRANGE and item.agreement is Agreement.MORE:
            consequence = Consequence.WARN
        told[consequence].append(_sentence(item, names))
    title = f"{names[0][0].upper()}{names[0][1:]} and {names[1]}"
    if told[Consequence.REFUSE]:
        raise EmbodimentError(f"{title} do not agree: {'; '.join(told[Consequence.REFUSE])}. {junction.remedy}")
    if told[Consequence.WARN]:
        logger.warning(f"{title}: {'; '.join(told[Consequence.WARN])}. {junction.remedy}")
    for consequence in (Consequence.ARRANGE, Consequence.NOTE):
        if told[consequence]:
            logger.info(f"{title}: {'; '.join(told[consequence])}.")
    return told[Consequence.WARN]


def consequence_of(junction: Junction, item: Item) -> Consequence:
    """What follows from an item that is not equal on both sides."""
    place = {Agreement.REORDERED: 0, Agreement.MORE: 0, Agreement.DIFFERENT: 1, Agreement.UNKNOWN: 2}
    return junction.items[item.name][place[item.agreement]]


def _sentence(item: Item, names: tuple[str, str]) -> str:
    label = item.name.replace("_", " ").replace(" dim", " dimension")
    if item.agreement is Agreement.UNKNOWN:
        known, unknown = (0, 1) if item.second is None else (1, 0)
        value = item.first if known == 0 else item.second
        return f"{label}: {names[known]} {_text(value)}, {names[unknown]} does not say"
    order = " in another order" if item.agreement is Agreement.REORDERED else ""
    rest = ", of which the others are ignored" if item.agreement is Agreement.MORE else ""
    return f"{label}{order}: {names[0]} {_text(item.first)}, {names[1]} {_text(item.second)}{rest}"


def _text(value: object) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


__all__ = [
    "ACTION_ITEMS",
    "CHECKING",
    "CONTROL",
    "EVALUATION",
    "FINE_TUNING",
    "IMAGINATION",
    "JUNCTIONS",
    "MIXTURE",
    "NORMALIZATION_ITEMS",
    "PREFERENCES",
    "STATE_ITEMS",
    "WORLD_MODEL",
    "Consequence",
    "EmbodimentError",
    "Junction",
    "check_junction",
    "consequence_of",
]
