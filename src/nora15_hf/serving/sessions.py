# Copyright 2026 The nora15_hf authors. Licensed under the Apache License, Version 2.0.
"""What a server remembers of a client between two requests: the episode's seed and how often the policy has looked."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from ..actions.keyed_noise import NoiseKey

REMEMBERED_SESSIONS = 1_024


class Session:
    """
    Noise keys of one episode after another, as closed-loop evaluation counts them: `(episode seed, number of the prediction)`.

    Args:
        new_seed (`Callable[[], int]`): Seed of an episode to which the client gives none.
    """

    def __init__(self, new_seed: Callable[[], int]):
        self._new_seed = new_seed
        self.begin()

    def begin(self, seed: int | None = None) -> None:
        """Begins an episode: its predictions are counted from 0, with the client's seed or, once it is needed, a new one."""
        self.seed = seed
        self.predictions = 0

    def next_key(self) -> NoiseKey:
        """The noise key of the next prediction of this episode."""
        if self.seed is None:
            self.seed = self._new_seed()
        self.predictions += 1
        return (self.seed, self.predictions - 1)


class SessionTable:
    """Sessions by name; the one that was not used for longest is forgotten when there are too many."""

    def __init__(self, new_seed: Callable[[], int]):
        self._new_seed = new_seed
        self._sessions: OrderedDict[Hashable, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, name: Hashable) -> Session:
        """The session of that name, which begins now if there is none."""
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(self._new_seed)
            if len(self._sessions) > REMEMBERED_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(name)
        return session

    def forget(self, name: Hashable) -> None:
        """Drops a session whose client has gone."""
        self._sessions.pop(name, None)


__all__ = ["Session", "SessionTable"]
