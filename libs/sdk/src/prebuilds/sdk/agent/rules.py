"""What an agent does at an answer (behaviour section 8): decisions only, so that a model can take them too.

Who is authoritative: the gateway, that is Postgres, for incarnation and generation; the agent alone for whether its
work runs. An agent process goes through: begin (GetManifest) -> run, report and ask at once -> begin again, when a
`Reinit` of a higher generation comes or, after a pause, when another process has begun since. A crash at any point is
a new process that begins; a lost answer is asked for again with the same numbers, which changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

from prebuilds.domain.refusals import Reason

SHORTEST_PAUSE: Final = timedelta(milliseconds=100)
LONGEST_PAUSE: Final = timedelta(seconds=10)
FIRST_UNAUTHENTICATED_PAUSE: Final = timedelta(seconds=1)
LONGEST_UNAUTHENTICATED_PAUSE: Final = timedelta(minutes=5)
STALE_PAUSE: Final = timedelta(minutes=5)
STALE_JITTER: Final = 0.2
"""The pause after STALE_INCARNATION is spread by this part of it to either side: twins shall not wake together."""
STEADY_STREAM: Final = timedelta(seconds=30)
"""A stream that was open for so long forgives the failures before it."""

_DOUBLINGS: Final = 16


class Answer(StrEnum):
    """How a call to the gateway ended, as far as an agent tells it apart."""

    OK = "ok"
    NOT_A_PREBUILD = "not_a_prebuild"
    """FAILED_PRECONDITION."""
    STALE = "stale"
    """ABORTED with the reason STALE_INCARNATION."""
    UNAUTHENTICATED = "unauthenticated"
    FAULT = "fault"
    """Anything else."""


def answer_of(code: str, reason: Reason | None) -> Answer:
    """Read the name of a gRPC status code, and the reason where there is one."""
    match code:
        case "OK":
            return Answer.OK
        case "FAILED_PRECONDITION":
            return Answer.NOT_A_PREBUILD
        case "UNAUTHENTICATED":
            return Answer.UNAUTHENTICATED
        case "ABORTED" if reason is Reason.STALE_INCARNATION:
            return Answer.STALE
        case _:
            return Answer.FAULT


@dataclass(frozen=True, slots=True)
class StopAsking:
    """Keep running; nothing will follow."""


@dataclass(frozen=True, slots=True)
class BeginAgain:
    """Keep running and ask nothing for `after`, then begin again: another process has the token."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Keep running; the same call again after `after`."""

    after: timedelta


Next: TypeAlias = StopAsking | BeginAgain | TryAgain


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row of one kind of call; those of the token are counted apart, their pauses are longer."""

    faults: int = 0
    unauthenticated: int = 0

    def and_one(self, answer: Answer) -> Failures:
        """One more."""
        if answer is Answer.UNAUTHENTICATED:
            return replace(self, unauthenticated=self.unauthenticated + 1)
        return replace(self, faults=self.faults + 1)


NO_FAILURES: Final = Failures()


def after_call(answer: Answer, failures: Failures, fraction: float) -> BeginAgain | TryAgain:
    """What to do when GetManifest or ReportState was not answered with OK.

    `failures` in a row, this one included; `fraction` is random in [0, 1).
    1. STALE: begin again after about 5 min. 2. Anything else: the same call again after a pause.
    """
    if answer is Answer.STALE:
        return BeginAgain(stale_pause(fraction))
    return TryAgain(pause(answer, failures, fraction))


def after_stream(answer: Answer, failures: Failures, fraction: float) -> Next:
    """What to do when a stream has ended without a `Reinit` that counts.

    `failures` in a row, this one included; `fraction` is random in [0, 1).
    1. OK and FAILED_PRECONDITION: stop asking. 2. STALE: begin again after about 5 min. 3. Anything else: again.
    """
    match answer:
        case Answer.OK | Answer.NOT_A_PREBUILD:
            return StopAsking()
        case Answer.STALE:
            return BeginAgain(stale_pause(fraction))
        case Answer.UNAUTHENTICATED | Answer.FAULT:
            return TryAgain(pause(answer, failures, fraction))
        case _:
            assert_never(answer)


def still_counting(failures: Failures, was_open: timedelta) -> Failures:
    """The failures in a row, once a stream has ended that was open for so long."""
    return NO_FAILURES if was_open >= STEADY_STREAM else failures


def is_due(own_generation: int, generation: int) -> bool:
    """Whether a `Reinit` of that generation counts for an agent that runs its own: one at or below is ignored."""
    return generation > own_generation


def is_to_be_entered(own_generation: int | None, generation: int) -> bool:
    """Whether a manifest's generation is work to start; `own_generation` is None before the first.

    Generations entered only rise, so each is entered at most once within a process. Beginning again at the same one
    restarts nothing.
    """
    return own_generation is None or generation > own_generation


def pause(answer: Answer, failures: Failures, fraction: float) -> timedelta:
    """How long to wait before the next try.

    Faults: full jitter between 100 ms and a bound that doubles from 200 ms to 10 s. Unauthenticated: 1 s doubling to
    5 min, up to a fifth less by jitter.
    """
    if answer is Answer.UNAUTHENTICATED:
        bound = _doubled(FIRST_UNAUTHENTICATED_PAUSE, failures.unauthenticated - 1, LONGEST_UNAUTHENTICATED_PAUSE)
        return bound * (1 - 0.2 * fraction)
    bound = _doubled(SHORTEST_PAUSE, failures.faults, LONGEST_PAUSE)
    return SHORTEST_PAUSE + (bound - SHORTEST_PAUSE) * fraction


def stale_pause(fraction: float) -> timedelta:
    """How long to ask nothing after STALE_INCARNATION."""
    return STALE_PAUSE * (1 + STALE_JITTER * (2 * fraction - 1))


def _doubled(first: timedelta, times: int, most: timedelta) -> timedelta:
    return min(most, first * 2 ** min(max(times, 0), _DOUBLINGS))
