"""How fast work gets done, told from counts that grow in steps, and how long the rest takes.

Shards become done one at a time and committed several at once, so a rate over a fixed window would
jump between nothing and too much: the window reaches back over several steps, however long ago.
It never reaches back over a pause, in which nobody worked.
"""

from collections import deque

WINDOW_S = 60.0
"""Seconds that the window covers at least, once so much time has passed."""

STEPS = 3
"""Steps that it covers at least, once there were so many."""

PAUSE_S, PAUSE_STEPS = 300.0, 10
"""A pause is longer than so many seconds and than so many of the steps before it."""


class Throughput:
    """Units a second over a sliding window of looks."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        """Nothing was seen yet."""
        self._window_s = window_s
        self._steps: deque[tuple[float, int]] = deque()
        self._now = 0.0

    def add(self, time_s: float, count: int) -> None:
        """Take in a look: what was done by then. A count that fell begins anew."""
        self._now = time_s
        if self._steps and count < self._steps[-1][1]:
            self._steps.clear()  # something was dropped
        if self._steps and count != self._steps[-1][1] and self._is_pause(time_s):
            self._steps.clear()
        if not self._steps or count != self._steps[-1][1]:
            self._steps.append((time_s, count))
        while len(self._steps) > STEPS + 1 and self._steps[1][0] <= time_s - self._window_s:
            self._steps.popleft()

    def begin_anew(self) -> None:
        """Forget what was seen: other work begins."""
        self._steps.clear()

    def _is_pause(self, time_s: float) -> bool:
        """Whether until now nothing was done for longer than the steps before let expect."""
        if len(self._steps) <= STEPS:
            return False
        (first, _), (last, _) = self._steps[0], self._steps[-1]
        usual = (last - first) / (len(self._steps) - 1)
        return time_s - last > max(PAUSE_S, PAUSE_STEPS * usual)

    def rate(self) -> float | None:
        """Units a second; None as long as nothing was seen to be done."""
        if len(self._steps) < 2:
            return None
        (since, before), (_, after) = self._steps[0], self._steps[-1]
        return (after - before) / max(self._now - since, 1e-9)

    def time_left(self, waiting: float) -> float | None:
        """Seconds that so many units take at this rate; None where no rate is known."""
        rate = self.rate()
        return waiting / rate if rate else None
