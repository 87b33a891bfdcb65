"""Whether a reported end of a build is accepted as it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from prebuilds.domain.builds import Transition

NO_AGENT = "the build left no agent"


def agents_left(transition: Transition, reported: Collection[str], known: Collection[str]) -> Sequence[str] | None:
    """Which of the workspace's agents exist after a build; None leaves them as they are: only a start decides it.

    A name that the workspace does not know is no agent of it. An empty answer fails the build (behaviour section 7).
    """
    if transition is not Transition.START:
        return None
    return sorted(set(reported) & set(known))
