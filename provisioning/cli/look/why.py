"""`flightcache why TASK`: why one task would run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from provisioning.base.errors import ConfigError
from provisioning.base.words import meant
from provisioning.build.plan import make_plan
from provisioning.cli.look.plan import WORK_TO_DO, task_lines


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("task", metavar="TASK", help="a task as `doit list --all` names it, such as engine:gist-color")
    parser.add_argument("directory", type=Path, nargs="?", default=Path(), metavar="DIR", help="cache directory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.epilog = "exit code 0: up to date; 1: it will run. example: flightcache why corpus valley"


def run(args: argparse.Namespace) -> int:
    """Print why the task, or each task of a group, would run."""
    plan = make_plan(args.directory)
    asked = [task for task in plan.tasks if args.task in (task.task, task.task.partition(":")[0])]
    if not asked:
        known = ", ".join(task.task for task in plan.tasks)
        near = meant(args.task, (task.task for task in plan.tasks))
        raise ConfigError(f"there is no task {args.task!r}{near}", next_step=f"name one of {known}")
    if args.json:
        print(json.dumps([{**asdict(task), "will_run": task.will_run} for task in asked], indent=2))
    else:
        print("\n".join(line for task in asked for line in task_lines(task, plan)))
    return WORK_TO_DO if any(task.will_run for task in asked) else 0
