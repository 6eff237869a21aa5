"""Two sides that write the same by turns, and the rows that come of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

from tests.bench.cases import TICKS, Cost, median
from tests.bench.mounts import Meter, Target
from tests.bench.works import Rsync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.bench.works import Work

ACCEPTED, SETTLED, AGAIN = "accepted", "settled", "again"
Opened: TypeAlias = "Callable[[], AbstractContextManager[Target]]"


@dataclass(frozen=True)
class Plan:
    """One row: what of a comparison it shows. ``each``: what its seconds are divided by."""

    phase: str
    what: str
    against: str
    goal: float | None
    each: int = 1


@dataclass(frozen=True)
class Result:
    """What one side took in one round, by phase. ``content``: bytes that "again" transferred."""

    costs: dict[str, Cost]
    content: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Two sides that do the same.

    ``work`` makes what is new for one side in one round; it is told whether that is theirs.
    """

    plans: tuple[Plan, ...]
    work: Callable[[bool], Work]
    ours: Opened
    theirs: Callable[[Work], Result]


@dataclass(frozen=True)
class Row:
    """One line of the table. ``ratio`` is theirs to ours: the larger the better.

    Seconds are medians of ``rounds``, which holds each (ours, theirs). ``content``: bytes of file
    contents that were transferred although nothing had changed, on both sides.
    """

    what: str
    ours: float
    against: str
    theirs: float
    ratio: float
    goal: float | None
    met: bool | None
    processor_ours: float
    processor_theirs: float
    rounds: list[tuple[float, float]]
    content: tuple[int, int] | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        extra = ""
        if self.content is not None:
            extra = "; content transferred: {} and {} bytes".format(*self.content)
        return (
            f"| {self.what}{extra} | {duration(self.ours)} | {self.against} {duration(self.theirs)}"
            f" | {self.ratio:.3g} | {self.goal or 'measured'} | {verdict}"
            f" | {self.processor_ours:.2f} s | {self.processor_theirs:.2f} s |"
        )


HEAD = (
    "| what | lafsfs | against | ratio | goal | | CPU lafsfs | CPU theirs |\n"
    "|---|---|---|---|---|---|---|---|"
)


def duration(seconds: float) -> str:
    """In the unit that suits."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.0f} us"


def tell(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


# --- measuring ------------------------------------------------------------------------------------


def on_mount(opened: Opened, work: Work) -> Result:
    """What a work costs on a mount of its own.

    It is done on the plain disk first, so that what it reads is in the kernel's cache anyway.
    """
    with opened() as target:
        with TemporaryDirectory(dir=target.point.parent) as scratch:
            work.write(Path(scratch))
        meter = Meter(target)
        work.write(target.point)
        costs = {ACCEPTED: told(ACCEPTED, meter)}
        target.settle()
        costs[SETTLED] = told(SETTLED, meter)
        if not isinstance(work, Rsync):
            return Result(costs)
        target.renew()
        meter = Meter(target)
        content = work.again(target.point)
        costs[AGAIN] = told(AGAIN, meter)
        return Result(costs, content)


def told(phase: str, meter: Meter) -> Cost:
    """What was done until now, which is also said."""
    cost = meter.read()
    tell(f"  {phase} {duration(cost.seconds)}, CPU {cost.processor:.2f} s")
    return cost


def compare(name: str, comparison: Comparison, rounds: int) -> Iterator[Row]:
    """Both sides by turns, then the rows."""
    mine: list[Result] = []
    theirs: list[Result] = []
    for number in range(rounds):
        tell(f"{name}, round {number + 1} of {rounds}, lafsfs")
        work = comparison.work(False)
        mine.append(on_mount(comparison.ours, work))
        tell(f"{name}, round {number + 1} of {rounds}, {comparison.plans[0].against}")
        theirs.append(comparison.theirs(comparison.work(True)))
    tell(f"{name}: comparing what is there with what was written")
    with comparison.ours() as target:
        work.check(target.point)
    for plan in comparison.plans:
        yield row_of(plan, mine, theirs)


def transferred(results: list[Result]) -> int:
    """The most bytes of content that any round transferred although nothing had changed."""
    return max(result.content or 0 for result in results)


def row_of(plan: Plan, mine: list[Result], theirs: list[Result]) -> Row:
    """One row of what both sides took in all rounds."""
    sides = [[result.costs[plan.phase] for result in side] for side in (mine, theirs)]
    us, them = (median(costs) for costs in sides)
    ratio = them.seconds / max(us.seconds, 1e-9)
    content = (transferred(mine), transferred(theirs)) if plan.phase == AGAIN else None
    met = None if plan.goal is None else ratio >= plan.goal and not (content and content[0])
    return Row(
        plan.what,
        us.seconds / plan.each,
        plan.against,
        them.seconds / plan.each,
        ratio,
        plan.goal,
        met,
        us.processor,
        max(them.processor, 1 / TICKS),
        [(a.seconds / plan.each, b.seconds / plan.each) for a, b in zip(*sides, strict=True)],
        content,
    )
