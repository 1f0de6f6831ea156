# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of the dimensions of a vector feature, in the forms in which recorders write them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any


def feature_names(feature: Mapping[str, Any]) -> list[str] | None:
    """
    Names of the dimensions of a vector feature, in the order of its values.

    Read are a list (`["x", "y"]`, also a nested one), a dictionary from name to position (`{"gripper": 1, "x": 0}`) and
    groups of either (`{"left": ["x", "y"], "right": ["x", "y"]}`). Names that occur in several groups are told apart by
    their group, as in `"left.x"`.

    Args:
        feature (`Mapping`): Entry of `info["features"]` with `"shape"` `(W,)` and, as a rule, `"names"`.

    Returns:
        `list[str]` of length W, each name once; `None` where the dataset does not name each dimension by a name of its own.
    """
    found = list(_named(feature.get("names"), ()))
    names = [path[-1] for path in found]
    repeated = {name for name, times in Counter(names).items() if times > 1}
    names = [".".join(path) if path[-1] in repeated else path[-1] for path in found]
    return names if len(set(names)) == len(names) == feature["shape"][0] else None


def _named(names: Any, group: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Each name behind the names of the groups that it belongs to."""
    if isinstance(names, Mapping):
        if all(isinstance(value, int) for value in names.values()):
            yield from _named(sorted(names, key=names.__getitem__), group)
        else:
            for key, members in names.items():
                yield from _named(members, (*group, str(key)))
    elif isinstance(names, list | tuple):
        for member in names:
            yield from _named(member, group)
    elif names is not None:
        yield (*group, str(names))


__all__ = ["feature_names"]
