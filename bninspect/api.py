"""Public functions of the package: check, list_layers, compare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bninspect.config.lookup import base_config
from bninspect.config.model import Jobs, make_config
from bninspect.model.checkpoint import Engine
from bninspect.model.report import Report
from bninspect.runs.compare import compare_paths
from bninspect.runs.paths import PathName
from bninspect.runs.run import check_paths, list_paths

if TYPE_CHECKING:
    from bninspect.verdicts.comparison import Comparison


def check(
    *paths: PathName,
    select: str | Iterable[str] = (),
    ignore: str | Iterable[str] = (),
    momentum: float | None = None,
    patterns: str | Iterable[str] = (),
    all_checkpoints: bool = False,
    engine: Engine = "native",
    since: PathName | None = None,
    verify: bool = False,
    jobs: Jobs = 1,
    config: PathName | None = None,
) -> Report:
    """Apply the rules to every checkpoint that `paths` name.

    A path is a prefix, a file of a checkpoint, a directory or a pattern. A training directory
    stands for its newest checkpoint, with `all_checkpoints` for all of them; a directory without
    a state file stands for every checkpoint below it. `select` and `ignore` are rule codes or
    their beginnings, `momentum` (0 to 1) is used where none is stored, `patterns` are `ROLE=REGEX`
    for variable names of your own, `engine` is what reads the files. `verify`
    verifies the checksum of `.keras` archives of any size, not only of small ones on the disk. A
    checkpoint that cannot be read is reported with its `error`. Raises `UsageProblem` for a wrong
    option.

    `since` is an earlier checkpoint of the training, with which all are compared (BN107); raises a
    `ReadProblem` if it cannot be read; `none_compared` of the report says if no layer could be
    compared. Without it, `all_checkpoints` compares each checkpoint with the one before it in the
    same directory whose name differs in numbers alone (or the same in directories of one checkpoint
    each, whose names do), if it has the same layers and its step is later; a note says where that
    is not so and it matters.

    `jobs` is the largest number of processes that read, `auto` for the number of processors; as
    many are used as the work pays for. The values of the layers are then there, but their variables
    cannot be read again.

    No configuration file is searched for: `config` names the one to use (`bninspect.toml`, or a
    `pyproject.toml` with a table `[tool.bninspect]`), with its suppressions and its baseline.
    """
    options = make_config(
        select,
        ignore,
        momentum,
        patterns,
        all_checkpoints=all_checkpoints,
        engine=engine,
        since=since,
        verify=verify,
        jobs=jobs,
        base=None if config is None else base_config(config),
    )
    return check_paths(paths, options)


def list_layers(
    *paths: PathName,
    patterns: str | Iterable[str] = (),
    all_checkpoints: bool = False,
    engine: Engine = "native",
    graph: bool = False,
) -> Report:
    """Find and read the BN layers of every checkpoint that `paths` name, without judging them.

    Where the values are missing (an index without its shards) the layers are listed without.
    `all_checkpoints` and `engine` are those of `check`. With `graph`, `computations` of each
    checkpoint has for each layer's name how training computes it, by the graph or the Keras
    configuration that is stored.
    """
    config = make_config(
        patterns=patterns, all_checkpoints=all_checkpoints, engine=engine, graph=graph
    )
    return list_paths(paths, config)


def compare(
    *paths: PathName,
    patterns: str | Iterable[str] = (),
    engine: Engine = "native",
) -> Comparison:
    """Compare each BN layer from checkpoint to checkpoint of one training.

    `paths` name two checkpoints or more, oldest first; a directory stands for all that it keeps.
    Statistics that stood still while training went on are findings (BN107), and so are NaN (BN301)
    and a negative variance (BN302): errors if they last up to the newest checkpoint, else warnings.
    A checkpoint that cannot be read is among the `unreadable` of the result; with fewer than two
    that can be read, raises that `ReadProblem`. Raises `UsageProblem` if so few are named, or if a
    directory holds the folders of several trainings. `patterns` and `engine` are those of `check`.
    """
    return compare_paths(paths, make_config(patterns=patterns, engine=engine))
