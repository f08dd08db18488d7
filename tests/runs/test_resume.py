"""`check --format jsonl` and `--resume`: lines as they come, and a run that goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import bninspect.runs.sequential
from bninspect.cli.formats import CHECK
from tests.conftest import FIXTURES, Run, parsed
from tests.runs.test_parallel import layer, make_models, start_slow
from tests.support.pages import whole_page
from tests.support.table_writer import write_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return make_models(tmp_path / "models", 30)


def lines_of(text: str) -> list[Any]:
    return [parsed(line) for line in text.splitlines()]


def written(file: Path) -> list[Any]:
    return lines_of(file.read_text(encoding="utf-8"))


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of what is read."""
    paths = []
    examine = bninspect.runs.sequential.examine

    def noted(item: Any, *rest: Any, **more: Any) -> Any:
        paths.append(item.path)
        return examine(item, *rest, **more)

    monkeypatch.setattr("bninspect.runs.sequential.examine", noted)
    return paths


def test_a_line_is_what_the_document_has(run: Run, models: Path) -> None:
    *lines, last = lines_of(run("check", models, "--format", "jsonl").out)
    document = run("check", models, "--format", "json").json
    own = {"schema_version", "tool", "event", "settings", "state", "known", "names"}
    assert [{k: v for k, v in one.items() if k not in own} for one in lines] == document[
        "checkpoints"
    ]
    assert {one["event"] for one in lines} == {"checkpoint"}
    assert last["event"] == "summary"
    assert last["summary"] == document["summary"]
    assert last["notes"] == document["notes"]


@pytest.mark.parametrize("format_", sorted(CHECK.keys() - {"html"}))
def test_every_format_tells_the_earlier_results(
    run: Run, models: Path, tmp_path: Path, format_: str, examined: list[str]
) -> None:
    results = tmp_path / "results.jsonl"
    config = tmp_path / "own.toml"
    config.write_text(
        '[[suppress]]\nlayer = "net_3/*"\nrules = ["BN101"]\nreason = "known"\n', encoding="utf-8"
    )
    baseline = tmp_path / "known.json"
    run("check", models / "model_006", "--baseline", baseline, "--update-baseline")
    options = ("--config", config, "--baseline", baseline)
    call = ("check", models, *options, "--format")
    run(*call, f"jsonl={results}")
    whole = run(*call, format_)
    examined.clear()
    resumed = run(*call, format_, "--resume", results)
    assert resumed.out == whole.out
    assert resumed.exit_code == whole.exit_code == 2
    unreadable = [one["path"] for one in written(results)[:-1] if one["error"]]
    assert examined == unreadable


def test_a_page_says_of_which_checkpoints_it_lacks_the_values(
    run: Run, models: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    run("check", models, "--format", f"jsonl={results}")
    added = models / "z_last" / "model.ckpt"
    added.parent.mkdir()
    write_bundle(added, layer("late/bn"))
    whole = run("check", models, "--format", "html")
    resumed = run("check", models, "--format", "html", "--resume", results)
    assert resumed.exit_code == whole.exit_code == 2
    assert "not stored, moving_mean not stored" not in resumed.out  # which is true of no layer
    assert resumed.out.count("the result of an earlier run (--resume)") == sum(
        bool(one["layers"]) for one in written(results)[:-1]
    )
    assert len(whole_page(resumed.out).all("div", "map")) == 1  # of the checkpoint that was read
    assert _verdicts_of(resumed.out) == _verdicts_of(whole.out)
    findings = sum(len(one["findings"]) for one in written(results)[:-1])
    assert len(_verdicts_of(whole.out)) >= 31 + findings


def _verdicts_of(page: str) -> list[str]:
    """The verdicts on the checkpoints of a page, and the titles of their findings."""
    summaries = whole_page(page).all("summary")
    return [one.text for one in summaries if "section" not in one.inside]


def test_reads_what_is_missing_changed_or_unreadable(
    run: Run, tmp_path: Path, examined: list[str]
) -> None:
    models = make_models(tmp_path / "models", 6)
    results = tmp_path / "results.jsonl"
    call = ("check", models, "--format", f"jsonl={results}", "--resume", results)
    first = run(*call)
    assert first.exit_code == 2
    changed, mended = (models / f"model_00{n}" / "model.ckpt" for n in (2, 0))
    write_bundle(changed, layer("net_2/bn", stuck=True))
    write_bundle(mended, layer("net_0/bn"))
    write_bundle(models / "new.ckpt", layer("new/bn"))
    examined.clear()
    again = run(*call)
    assert again.exit_code == 1
    assert examined == [str(models / "new.ckpt"), str(mended), str(changed)]
    added = written(results)[7:]
    assert [one["path"] for one in added[:-1]] == examined
    assert added[-1]["summary"]["checkpoints"] == 7
    assert added[-1]["summary"]["unreadable"] == 0
    assert added[-1]["summary"]["errors"] == 2  # model_002, and model_003 of the run before
    examined.clear()
    assert run(*call).exit_code == 1
    assert examined == []


@pytest.mark.processes
def test_a_run_that_was_killed_goes_on(run: Run, tmp_path: Path, examined: list[str]) -> None:
    models = make_models(tmp_path / "models", 12)
    (models / "z_last").mkdir()
    write_bundle(models / "z_last" / "model.ckpt", layer("late/bn"))
    results = tmp_path / "results.jsonl"
    process = start_slow("check", models, "--format", f"jsonl={results}")
    assert process.stderr is not None
    assert process.stderr.readline() == "asleep\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = results.read_bytes()
    assert done.count(b"\n") == 12
    results.write_bytes(done[:-100])  # the last line was cut off
    resumed = run("check", models, "--format", f"jsonl={results}", "--resume", results)
    assert resumed.exit_code == 2
    assert [Path(one).parent.name for one in examined] == [
        "model_000", "model_007", "model_011", "z_last",
    ]  # fmt: skip
    lines = written(results)  # each is whole
    assert lines[-1]["summary"] == run("check", models, "--format", "json").json["summary"]


def test_each_compared_with_the_one_before_goes_by_trainings(
    run: Run, tmp_path: Path, examined: list[str]
) -> None:
    for name in ("tf1_history_stopped", "tf1_history_correct"):
        shutil.copytree(FIXTURES / name, tmp_path / "runs" / name)
    results = tmp_path / "results.jsonl"
    call = ("check", tmp_path / "runs", "--all-checkpoints", "--format")
    run(*call, f"jsonl={results}")
    os.utime(tmp_path / "runs/tf1_history_stopped/model.ckpt-20.index", (1, 1))
    examined.clear()
    resumed = run(*call, "json", "--resume", results)
    assert examined
    assert {Path(one).parent.name for one in examined} == {"tf1_history_stopped"}
    assert resumed.json == run(*call, "json").json


@pytest.mark.parametrize("gone", [20, 40, 60])
def test_a_comparison_with_what_is_gone_is_made_again(
    run: Run, tmp_path: Path, examined: list[str], gone: int
) -> None:
    for name in ("tf1_history_stopped", "tf1_history_correct"):
        shutil.copytree(FIXTURES / name, tmp_path / "runs" / name)
    results = tmp_path / "results.jsonl"
    call = ("check", tmp_path / "runs", "--all-checkpoints", "--format")
    run(*call, f"jsonl={results}")
    for file in (tmp_path / "runs" / "tf1_history_stopped").glob(f"model.ckpt-{gone}.*"):
        file.unlink()
    examined.clear()
    resumed = run(*call, "json", "--resume", results)
    assert {Path(one).parent.name for one in examined} <= {"tf1_history_stopped"}
    assert resumed.json == run(*call, "json").json


def test_only_since_names_what_results_were_compared_with(run: Run, tmp_path: Path) -> None:
    """No layer without statistics can be compared: that is a fault if `--since` asked for it."""
    training = tmp_path / "training"
    training.mkdir()
    source = FIXTURES / "slim_trainable_only_saver"
    for step in (10, 20):
        for end in ("index", "data-00000-of-00001"):
            shutil.copy(source / f"model.ckpt-60.{end}", training / f"model.ckpt-{step}.{end}")
    for number, options in enumerate(
        [("--all-checkpoints",), ("--since", training / "model.ckpt-10")]
    ):
        results = tmp_path / f"{number}.jsonl"
        call = ("check", training / "model.ckpt-*", *options, "--format")
        run(*call, f"jsonl={results}")
        whole = run(*call, "text")
        assert run(*call, "text", "--resume", results) == whole
        assert ("none could be compared" in whole.out) is ("--since" in options)


@pytest.mark.parametrize(
    "options",
    [
        ("--ignore", "BN303"),
        ("--momentum", "0.9"),
        ("--pattern", "gamma=x$"),
        ("--all-checkpoints",),
        ("--since", str(FIXTURES / "tf1_history_stopped" / "model.ckpt-20")),
    ],
    ids=lambda value: value[0],
)
def test_results_of_other_options_are_not_mixed_in(
    run: Run, models: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    results = tmp_path / "results.jsonl"
    run("check", models, "--format", f"jsonl={results}")
    before = results.read_bytes()
    outcome = run("check", models, *options, "--format", f"jsonl={results}", "--resume", results)
    assert outcome.exit_code == 2
    assert "made with other options" in outcome.err
    assert results.read_bytes() == before


def test_results_of_another_version_are_not_mixed_in(
    run: Run, models: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    run("check", models, "--format", f"jsonl={results}")
    text = results.read_text(encoding="utf-8")
    version = json.loads(text.splitlines()[0])["tool"]["version"]
    results.write_text(text.replace(f'"version":"{version}"', '"version":"0.0.1"'), "utf-8")
    outcome = run("check", models, "--resume", results)
    assert outcome.exit_code == 2
    assert "written by bninspect 0.0.1" in outcome.err


def test_another_file_is_neither_read_nor_overwritten(
    run: Run, models: Path, tmp_path: Path
) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine\n", encoding="utf-8")
    for options in (("--resume", other), ("--format", f"jsonl={other}")):
        outcome = run("check", models, *options)
        assert outcome.exit_code == 2
        assert "this is not a file that" in outcome.err
    model = models / "model_001" / "model.ckpt.index"
    before = model.read_bytes()
    assert run("check", models, "--format", f"jsonl={model}").exit_code == 2
    assert model.read_bytes() == before
    assert other.read_text(encoding="utf-8") == "mine\n"
    missing = run("check", models, "--resume", tmp_path / "missing.jsonl")
    assert missing.exit_code == 2
    assert "file not found" in missing.err


def test_other_formats_do_not_overwrite_the_results(run: Run, models: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    run("check", models, "--format", f"jsonl={results}")
    before = results.read_bytes()
    outcome = run("check", models, "--format", f"json={results}", "--resume", results)
    assert outcome.exit_code == 2
    assert results.read_bytes() == before
    baseline = ("--baseline", tmp_path / "known.json", "--update-baseline")
    assert run("check", models, *baseline, "--resume", results).exit_code == 2


def test_results_to_go_on_with_are_a_file(run: Run, models: Path, tmp_path: Path) -> None:
    """A pipe would be waited for, for good."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/null"):
        for more in ((), ("--format", f"jsonl={path}")):
            outcome = run("check", models, "--resume", path, *more)
            assert outcome.exit_code == 2
            assert f"--resume {path}: this is not a file." in outcome.err


def test_a_link_that_leads_nowhere_yet(run: Run, models: Path, tmp_path: Path) -> None:
    link, results = tmp_path / "link.jsonl", tmp_path / "results.jsonl"
    link.symlink_to(results)
    for _ in range(2):
        call = ("check", models / "model_001", "--format", f"jsonl={link}", "--resume", link)
        assert run(*call).exit_code == 0
    assert len(written(results)) == 3
    assert link.is_symlink()


@pytest.mark.parametrize("option", ["--output", "--format", "--baseline"])
def test_nothing_is_written_to_a_url(run: Run, models: Path, option: str) -> None:
    url = "https://user:hidden@127.0.0.1:9/results?sig=hidden"
    given = f"jsonl={url}" if option == "--format" else url
    more = ["--update-baseline"] if option == "--baseline" else []
    outcome = run("check", models / "model_001", option, given, *more)
    assert outcome.exit_code == 2
    assert "Cannot write https://127.0.0.1:9/results: it is a URL" in outcome.err
    assert "hidden" not in outcome.out + outcome.err
