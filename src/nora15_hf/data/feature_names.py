# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of the dimensions of a vector feature, in the forms in which recorders write them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from .lerobot_files import whole_number


def feature_names(feature: Mapping[str, Any]) -> list[str] | None:
    """
    Names of the dimensions of a vector feature, in the order of its values.

    Read are a list (`["x", "y"]`, also a nested one), a dictionary from name to position (`{"gripper": 1, "x": 0}`) or back, and
    groups of either (`{"left": ["x", "y"], "right": ["x", "y"]}`), whose positions may count from each group's first value
    or from that of the whole vector. Names that occur in several groups are told apart by their group, as in `"left.x"`.

    Args:
        feature (`Mapping`): Entry of `info["features"]` with `"shape"` `(W,)` and, as a rule, `"names"`.

    Returns:
        `list[str]` of length W, each name once; `None` where the dataset does not name each dimension by a name of its own.
    """
    width = feature["shape"][0]
    try:
        found = list(_named(feature.get("names"), ()))
    except ValueError:
        return None
    positions = [position for _, position in found]
    if len(positions) == width and set(positions) == set(range(width)):
        found.sort(key=lambda each: each[1])
    paths = [path for path, _ in found]
    repeated = {name for name, times in Counter(path[-1] for path in paths).items() if times > 1}
    names = [".".join(path) if path[-1] in repeated else path[-1] for path in paths]
    return names if len(set(names)) == len(names) == width else None


def _named(names: Any, group: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """Each name after the names of its groups, and its position if one is given."""
    if isinstance(names, Mapping):
        positions = {name: whole_number(value) for name, value in names.items()}
        if all(type(position) is int for position in positions.values()):
            order = sorted(positions, key=positions.__getitem__)
            if len(set(positions.values())) != len(positions):
                raise ValueError(f"{names} gives two names the same position.")
            yield from (((*group, str(name)), positions[name]) for name in order)
        elif all(isinstance(name, str) and str(place).isdecimal() for place, name in names.items()):
            # The other way round.
            yield from (((*group, name), int(place)) for place, name in names.items())
        else:
            for key, members in names.items():
                yield from _named(members, (*group, str(key)))
    elif isinstance(names, list | tuple):
        for member in names:
            yield from _named(member, group)
    elif names is not None:
        yield (*group, str(names)), None


__all__ = ["feature_names"]
