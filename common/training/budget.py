"""The number of steps of a run. A time budget is converted to steps once, by measuring the speed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TypeVar

from common.training.config import seconds
from common.training.meter import Meter
from common.training.run import VALIDATIONS, Run
from common.training.run_dir import last_step
from common.training.step import train_step
from common.utils.errors import UserError

T = TypeVar("T")
WARM_UP, LONGEST = 2, 50  # steps that are not timed, and at most timed
TIMED_SHARE = 0.03  # of the budget that timing may take, beyond three steps
VALIDATION_SHARE = 0.2  # of the budget that validations may take, where `eval_every` is not given
MARGIN = 0.97  # saving and drawing are not timed


def plan(run: Run) -> None:
    """Set `last_step` and `eval_every` of the run. With a budget, take a few steps to measure the speed, and undo them.

    A budget that the saved state was planned for is not planned again, so a resumed run has the same steps and learning
    rates. Raises UserError where neither steps, epochs nor a budget is given.
    """
    loop = run.config.loop
    steps = last_step(loop, len(run.data.indices))
    if not (steps or loop.budget):
        raise UserError("the run has no end: give steps, epochs or budget")
    if loop.budget is None:
        run.last_step = steps
    elif run.planned_for != loop.budget:
        within = run.step + _steps_within(run, seconds(loop.budget) - run.seconds)
        run.last_step, run.planned_for = min(steps or within, within), loop.budget
        run.logger.say(f"a budget of {loop.budget} is {run.last_step} steps at the measured speed")
        run.save()  # the plan belongs to the run
    run.eval_every = run.eval_every or max(1, run.last_step // VALIDATIONS)


def _steps_within(run: Run, budget: float) -> int:
    """How many steps, with their validations, fit into so many seconds.

    Processes must take the same steps, so the clock of the first decides for all of them.
    """
    budget = _of_first(run, budget)
    if budget <= 0:
        return 0
    start = time.perf_counter()
    saved = copy.deepcopy(run.state_dict())
    meter = Meter(check_every=1)
    for _ in range(WARM_UP):
        train_step(run, meter)
    count, timed = 0, time.perf_counter()
    while count < 3 or (count < LONGEST and _of_first(run, time.perf_counter() - timed) < TIMED_SHARE * budget):
        train_step(run, meter)
        count += 1
    step_seconds = (time.perf_counter() - timed) / count
    validation_seconds = _timed(run.measure)
    run.load_state_dict(saved)
    left = MARGIN * (budget - (time.perf_counter() - start))
    if run.config.loop.eval_every:
        step_seconds += validation_seconds / run.config.loop.eval_every
    else:
        left -= min(VALIDATIONS * validation_seconds, VALIDATION_SHARE * budget)
        run.eval_every = max(1, round(validation_seconds / (VALIDATION_SHARE * step_seconds)))
    steps = max(1, int(left / step_seconds))
    if not run.config.loop.eval_every:
        run.eval_every = max(run.eval_every, steps // VALIDATIONS)
    steps, run.eval_every = _of_first(run, (steps, run.eval_every))
    return steps


def _of_first(run: Run, value: T) -> T:
    """The value of the first process, in all processes."""
    return run.processes.gather(value)[0]


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
