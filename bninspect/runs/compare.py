"""The run of `compare`: the checkpoints of one training, each compared with the previous one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bninspect.config.model import Config
from bninspect.errors import UsageProblem
from bninspect.locate.trainings import training_folders, with_trainings
from bninspect.model.target import CheckpointLocation
from bninspect.runs.order import oldest_first
from bninspect.runs.paths import PathName, begin_run, expand_paths, find_in_each
from bninspect.runs.run import examine_all
from bninspect.wording import listed

if TYPE_CHECKING:
    from bninspect.verdicts.comparison import Comparison


def compare_paths(paths: Iterable[PathName], config: Config) -> Comparison:
    """Compare the checkpoints of one training, which `paths` name oldest first.

    Raises `UsageProblem` if they name fewer than two, or several trainings, and a `ReadProblem` if
    fewer than two can be read.
    """
    from bninspect.verdicts.comparison import compare_checkpoints

    typed = begin_run(paths)
    found = find_in_each(typed, config, every=True)
    known = {path: locations for path, (locations, _) in zip(typed, found, strict=True)}
    for path, locations in known.items():
        _refuse_several_trainings(path, locations)
        known[path] = oldest_first(with_trainings(locations), config.engine)
    everything = replace(config, all_checkpoints=True)
    reports = tuple(examine_all(expand_paths(typed, everything, known), everything, ()))
    readable = sum(report.error is None for report in reports)
    problem = next((report.error for report in reports if report.error is not None), None)
    if readable < 2 and problem is not None:
        raise problem
    if readable < 2:
        given = ", ".join(typed) or "nothing"
        count = "none" if not readable else "the same one" if len(typed) > 1 else "one"
        raise UsageProblem(
            f"compare needs at least two checkpoints of a training, but {given} names {count}."
        )
    return compare_checkpoints(reports)


def _refuse_several_trainings(path: str, locations: Sequence[CheckpointLocation]) -> None:
    """Raise `UsageProblem` if a directory or pattern stands for more than one training."""
    folders = training_folders(path, locations)
    if len(folders) > 1:
        raise UsageProblem(
            f"compare takes the checkpoints of one training, but {path} holds those of"
            f" {len(folders)} folders: {listed(folders)}. Compare one folder at a time, or name the"
            " checkpoints, oldest first."
        )
