"""`flightcache plan`: what `doit` would do and why, before it is done."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from provisioning.base.words import counted
from provisioning.build.plan import Plan, TaskPlan, make_plan
from provisioning.console.bar import duration, size

WORK_TO_DO = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("directory", type=Path, nargs="?", default=Path(), metavar="DIR", help="cache directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = (
        "exit code 0: nothing to do; 1: there is work. example: flightcache plan valley || (cd valley && doit)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the plan; the exit code tells whether there is work."""
    plan = make_plan(args.directory)
    if args.json:
        print(json.dumps({**asdict(plan), "has_work": plan.has_work}, indent=2))
    else:
        index = [f"  index {plan.index}"] if plan.index else []
        index += [f"  recognition, as published: {plan.recognition}"] if plan.recognition else []
        index += [f"  note: {note}" for note in plan.notes]
        print("\n".join([*(line for task in plan.tasks for line in task_lines(task, plan)), *index, summary(plan)]))
    return WORK_TO_DO if plan.has_work else 0


def task_lines(task: TaskPlan, plan: Plan) -> Iterator[str]:
    """Yield one line for a task, and one for each fact that changed."""
    if not task.will_run:
        yield f"  {task.task:<24} up to date"
        return
    seconds = "" if task.seconds is None or task.task == "descriptors" else f" (last time {task.seconds:.1f} s)"
    yield f"! {task.task:<24} will run{seconds}: {'; '.join(task.why)}"
    for change in task.changes:
        counts = f" (+{plan.added} −{plan.removed} ~{plan.changed})" if change.fact == "tiles" else ""
        yield f"    {change}{counts}"


def summary(plan: Plan) -> str:
    """Return what the work amounts to, in one line."""
    if not plan.has_work:
        return f"nothing to do: {counted(plan.tiles, 'tile')}, {plan.place}, everything is up to date"
    return (
        f"{counted(plan.tiles, 'tile')} (+{plan.added} −{plan.removed} ~{plan.changed}), {plan.place}, "
        f"{counted(plan.descriptors, 'descriptor')} to compute, about {size(plan.bytes_to_write)} to write, "
        f"up to {size(plan.memory_bytes)} of memory, {_time(plan)}"
    )


def _time(plan: Plan) -> str:
    """Return how long it takes: as last time, or as a trial of the network says, and which tasks that leaves out."""
    why = f": {plan.why_not_timed}" if plan.why_not_timed else ""
    left_out = ", ".join(plan.not_timed)
    if plan.seconds is None:
        return f"time unknown{why or f' until these have run once: {left_out}'}"
    tried = "the network was tried here" if plan.seconds_tried else "as last time"
    without = f"; without {left_out}{why}" if left_out else ""
    return f"{'at least ' if left_out else ''}about {duration(plan.seconds)} ({tried}{without})"
