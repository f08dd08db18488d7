"""The documents do not rot: what they show runs, what they list is whole, links lead somewhere."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bninspect.batchnorm.families import FAMILIES
from bninspect.cli.formats import CHECK
from bninspect.cli.main import COMMANDS, main
from bninspect.reporters.config_text import _KEYS
from tests.cli.test_help import part
from tests.conftest import FIXTURES, ROOT, Run, parsed
from tests.support.documents import (
    DOCUMENTS,
    RULE_PAGES,
    blocks,
    commands,
    framework_marks,
    make_workplace,
    run_in,
    served_bucket,
    timeless,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMATS, IN_CI, STARTED, WATCH = (
    ROOT / "docs" / f"{name}.md" for name in ("formats", "ci", "getting-started", "watch")
)
LINKED = (
    *DOCUMENTS,
    *RULE_PAGES,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    FIXTURES / "README.md",
)
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))

# What code with a `model` to train speaks of.
TRAINING = """
import warnings
import bninspect.keras, keras, numpy
warnings.simplefilter("error", bninspect.keras.BatchNormWarning)
images, labels = numpy.random.default_rng(0).normal(3, 2, (64, 4)), numpy.ones((64, 1))
layers = [keras.layers.BatchNormalization(), keras.layers.Dense(1)]
model = keras.Sequential([keras.Input((4,)), *layers])
model.compile("sgd", "mse")
"""

# What code with a train op to run in a session speaks of.
SESSION = """
import os, warnings
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import bninspect.tf1, numpy, tensorflow.compat.v1 as tf
warnings.simplefilter("error", bninspect.tf1.BatchNormWarning)
tf.disable_v2_behavior()
images = tf.placeholder(tf.float32, (None, 4))
hidden = tf.layers.batch_normalization(tf.layers.dense(images, 4), training=True)
loss = tf.reduce_mean((tf.layers.dense(hidden, 1) - 1) ** 2)
with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    optimizer = tf.train.AdamOptimizer()
    train_op = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
batches = iter(numpy.random.default_rng(0).normal(3, 2, (120, 16, 4)))
session = tf.Session()
session.run(tf.global_variables_initializer())
"""

# What code with a state of Flax to train speaks of.
STATE = """
import warnings
import bninspect.flax, jax, numpy, optax
from flax import linen
from flax.training import train_state
warnings.simplefilter("error", bninspect.flax.BatchNormWarning)
class Net(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(4)(x))
        return linen.Dense(1)(x)
class TrainState(train_state.TrainState):
    batch_stats: dict
batches = numpy.random.default_rng(0).normal(3, 2, (120, 16, 4))
batch = batches[0]
variables = Net().init(jax.random.key(0), batch, train=False)
state = TrainState.create(apply_fn=Net().apply, tx=optax.sgd(1e-3), **variables)
@jax.jit
def train_step(state, batch):
    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        y, updates = state.apply_fn(variables, batch, train=True, mutable=["batch_stats"])
        return ((y - 1) ** 2).mean(), updates
    gradients, updates = jax.grad(loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=updates["batch_stats"])
"""

# What the code of the documents speaks of, by what only such code has.
SETUPS = {"model.fit(": TRAINING, "session.run(train_op": SESSION, "train_step(": STATE}

# Stands for a training: its checkpoints one after the other, and a mark if nobody stopped it. It
# takes its time from when the watch has begun, which a slow machine may delay.
WRITES = """
import pathlib, shutil, sys, time
begun = pathlib.Path("begun")
while not (begun.exists() and begun.stat().st_size):
    time.sleep(0.1)
new = pathlib.Path("new_run")
new.mkdir()
for path in sorted(pathlib.Path(sys.argv[1]).glob("model.ckpt-*")):
    shutil.copy(path, new / path.name)
time.sleep(float(sys.argv[2]))
pathlib.Path("trained").touch()
sys.exit(int(sys.argv[3]))
"""

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
each_page = pytest.mark.parametrize(
    "document", [*DOCUMENTS, *RULE_PAGES], ids=lambda path: path.stem
)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    make_workplace(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with served_bucket(tmp_path_factory.mktemp("bucket")) as variables:
        yield variables


@pytest.fixture
def variables(document: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Those that the commands of a document need, if it speaks of the bucket."""
    if "s3://bucket/" not in document.read_text(encoding="utf-8"):
        return {}
    told: dict[str, str] = request.getfixturevalue("bucket")
    return told


# --- What is run ----------------------------------------------------------------------------------


def test_there_is_something_to_run_in_the_documents() -> None:
    """A document may have none of a kind; all of them together have some of each."""
    assert sum(len(list(commands(document))) for document in DOCUMENTS) > 40
    for language in ("python", "yaml", "groovy", "toml"):
        assert any(blocks(document, language) for document in DOCUMENTS), language
    text = "".join(document.read_text("utf-8") for document in DOCUMENTS)
    assert re.search(r"`bninspect \w[^`]+`", text)
    assert re.search(r"`--[a-z-]+", text)


@pytest.mark.servers
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            document,
            id=document.stem,
            marks=framework_marks(command.line for command in commands(document)),
        )
        for document in DOCUMENTS
    ],
)
def test_commands_do_what_is_shown(
    document: Path, workplace: Path, variables: dict[str, str]
) -> None:
    for command in commands(document):
        done = run_in(workplace, command.line, **variables)
        assert "Traceback" not in done.stdout, command.line
        if command.output is not None:
            assert timeless(done.stdout.strip("\n")) == timeless(command.output)
        if command.exit_code is not None:
            assert done.returncode == command.exit_code, f"{command.line}\n{done.stdout}"


@pytest.mark.framework
@pytest.mark.servers
@each_document
def test_python_runs(document: Path, workplace: Path, variables: dict[str, str]) -> None:
    """Code of a rule's page runs with its tests, all other code here, after the commands.

    What has a model, a train op or a state to train is given one; a test is called.
    """
    pages = "".join(page.read_text(encoding="utf-8") for page in RULE_PAGES)
    own = [one.text for one in blocks(document, "python") if one.text not in pages]
    if own:
        for command in commands(document):
            run_in(workplace, command.line, **variables)
    for text in own:
        whole = "".join(setup for code, setup in SETUPS.items() if code in text) + text
        whole += "".join(f"\n{name}()\n" for name in re.findall(r"^def (test_\w+)", text, re.M))
        (workplace / "example.py").write_text(whole, encoding="utf-8")
        done = run_in(workplace, f'"{sys.executable}" example.py', **variables)
        assert done.returncode == 0, f"{text}\n{done.stdout}"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("run", "seconds", "own_code", "exit_code"),
    [
        ("run2", 600, 0, 1),  # whose statistics are stuck
        ("run1", 3, 0, 0),
        ("run1", 3, 7, 7),
    ],
    ids=["stopped", "sound", "fails by itself"],
)
def test_a_training_is_stopped(
    workplace: Path, run: str, seconds: float, own_code: int, exit_code: int
) -> None:
    """The script that watches beside a training does what is said of it."""
    (script,) = blocks(WATCH, "bash")
    assert "python train.py " in script.text
    line = f'"{sys.executable}" train.py {run} {seconds} {own_code} '
    text = script.text.replace("python train.py ", line)
    text = text.replace("bninspect watch ", "bninspect watch --interval 0.5 ")
    text = text.replace("--fail-fast &", "--fail-fast 2> begun &")
    assert "2> begun" in text
    (workplace / "train.py").write_text(WRITES, encoding="utf-8")
    (workplace / "job").write_text(text, encoding="utf-8")
    done = run_in(workplace, "bash job")
    assert done.returncode == exit_code, done.stdout
    assert (workplace / "trained").exists() == (seconds < 600)
    assert ("FAIL" in done.stdout) == (run == "run2")


def test_the_fix_of_the_guide_is_that_of_the_page() -> None:
    (code,) = blocks(STARTED, "python")
    assert code.text in (ROOT / "docs/rules/BN101.md").read_text(encoding="utf-8")


@pytest.mark.servers
@each_document
def test_commands_in_pipelines_run(
    document: Path, workplace: Path, variables: dict[str, str]
) -> None:
    """Those of GitHub's and GitLab's YAML, and of Jenkins' Groovy."""
    for block in blocks(document, "yaml", "groovy"):
        found = re.findall(r"(?:run: |- )(bninspect .+)|sh '(bninspect [^']+)'", block.text)
        for line in map("".join, found):
            done = run_in(workplace, line, **variables)
            assert done.returncode in (0, 1), f"{line}\n{done.stdout}"
            for name in re.findall(r"=(\S+\.(?:sarif|xml|jsonl))", line):
                assert block.text.count(name) > 1, f"{name} is written and not used"
                assert (workplace / name).stat().st_size


@each_page
def test_commands_in_sentences_have_the_options(document: Path) -> None:
    """They are not run; the command and each option that they name must be there."""
    text = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`(bninspect \w[^`]+)`", text):
        _, name, *words = shlex.split(span)
        if name != "COMMAND":
            options = options_of(name)
            used = {one.partition("=")[0] for one in words if re.match("--?[a-z]", one)}
            assert used <= options, span
    every = set().union(*map(options_of, COMMANDS))
    for option in re.findall(r"`(--[a-z-]+)[^`]*`", text):
        assert option in every, option


def options_of(name: str) -> set[str]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    given = [one.opts for one in command.params if isinstance(one, click.Option)]
    return {"-h", "--help"}.union(*given)


def toml_blocks() -> list[str]:
    return [block.text for document in DOCUMENTS for block in blocks(document, "toml")]


@pytest.mark.processes
@pytest.mark.parametrize("text", toml_blocks(), ids=lambda text: text.partition("\n")[0])
def test_configurations_are_loaded(text: str, workplace: Path) -> None:
    """The first line of an example says what the file is called."""
    name = text.partition("\n")[0].removeprefix("# ")
    file = workplace / "settings" / name
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    done = run_in(workplace, f"bninspect config --config settings/{name} --format json")
    assert done.returncode == 0, done.stdout
    table = tomllib.loads(text)
    table = table["tool"]["bninspect"] if "tool" in table else table
    told = {
        key
        for key, value in parsed(done.stdout)["values"].items()
        if any(source.startswith(f"settings/{name}: ") for source in value["sources"])
    }
    assert told == set(table)


def test_an_example_has_every_key() -> None:
    assert set(tomllib.loads(blocks(IN_CI, "toml")[0].text)) == set(_KEYS)


# --- YAML -----------------------------------------------------------------------------------------


def yaml_blocks() -> list[str]:
    return [block.text for document in DOCUMENTS for block in blocks(document, "yaml")]


@pytest.mark.processes
@pytest.mark.parametrize("text", yaml_blocks(), ids=range(len(yaml_blocks())))
def test_pipelines_follow_their_schema(text: str, tmp_path: Path) -> None:
    example = yaml.safe_load(text)
    if isinstance(example, list):  # steps alone
        example = {"on": "push", "jobs": {"one": {"runs-on": "ubuntu-latest", "steps": example}}}
    if "repos" in example:
        check_pre_commit(example, tmp_path)
        return
    example = {"on" if key is True else key: value for key, value in example.items()}  # YAML 1.1
    kind = "github-workflows" if "jobs" in example else "gitlab-ci"
    file = tmp_path / "example.yml"
    file.write_text(json.dumps(example), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ours = [
        step
        for job in example.get("jobs", {}).values()
        for step in job["steps"]
        if step.get("uses", "").endswith("/bninspect")
    ]
    assert all(set(step["with"]) <= set(ACTION["inputs"]) for step in ours)
    for step, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", text):
        assert step in [one["id"] for one in ours]
        assert output in ACTION["outputs"]


def check_pre_commit(example: dict[str, Any], folder: Path) -> None:
    file = folder / ".pre-commit-config.yaml"
    file.write_text(yaml.safe_dump(example), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    named = {hook["id"] for repo in example["repos"] for hook in repo["hooks"]}
    assert named == {hook["id"] for hook in HOOKS}


# --- Stories --------------------------------------------------------------------------------------


def stories() -> list[str]:
    return (ROOT / "docs/stories.md").read_text("utf-8").split("\n## ")[1:-1]


@pytest.mark.parametrize("story", stories(), ids=lambda story: story.partition("\n")[0])
def test_a_story_tells_the_cause_that_the_program_names(story: str) -> None:
    """As its cause, as one that is likely, or as the rule; and it has a cause and a cure."""
    output, _, told = story.partition("\n```\n")
    cause, _, cure = told.partition("**Cure.**")
    assert "$ bninspect check fixtures/" in output
    assert cure
    named = re.findall(r"\((?:causes|rules)/([\w-]+)\.md\)|`([a-z]+(?:-[a-z]+)+)`", cause)
    left = re.findall(r"^ +(?:cause|likely|\d\.) +(?:1\. )?([a-z-]+)(?::|$)", output, re.MULTILINE)
    assert named
    assert {*map("".join, named)} <= {*left, *re.findall(r"\bBN\d{3}\b", output)}


# --- Shells ---------------------------------------------------------------------------------------

# What bash has only since 4.0 or later, and the bash 3.2 of macOS has not (bash's CHANGES).
NEWER = re.compile(
    r"\bwait -n\b|\b(?:mapfile|readarray|coproc)\b|\b(?:declare|local|typeset) -[a-zA-Z]*[Agnlu]"
    r"|&>>|\|&|;;?&|\$\{\w+(?:\[[^]]*\])?(?:,|\^|@)|\[-\d+\]|\$\{\w+:[^}:]*: *-"
    r"|\bshopt -s globstar\b|\$EPOCH(?:SECONDS|REALTIME)|\$BASHPID|\[\[ -v |%\(|\{\w+\}[<>]"
    r"|\{\d+\.\.\d+\.\.\d+\}|\{0\d+\.\."
)


def shell_scripts() -> Iterator[tuple[str, str]]:
    """Yield where it stands, and the text, of each shell script that is for any machine."""
    for document in (*DOCUMENTS, *RULE_PAGES, ROOT / "CONTRIBUTING.md"):
        for block in blocks(document, "sh", "bash"):
            yield document.name, block.text
        for block in blocks(document, "yaml"):
            yield from (
                (document.name, line) for line in re.findall(r"run: (?!\|)(.+)", block.text)
            )
    for step in ACTION["runs"]["steps"]:
        yield "action.yml", step.get("run", "")


def test_scripts_are_for_the_bash_of_macos() -> None:
    scripts = list(shell_scripts())
    assert {name for name, _ in scripts} > {"action.yml", "watch.md", "ci.md"}
    for name, text in scripts:
        assert (name, NEWER.findall(text)) == (name, [])


@pytest.mark.parametrize(
    "line",
    [
        *("wait -n", "mapfile -t lines", "declare -A ages", "local -n other=$1", "make &>> log"),
        *("make |& tee log", "echo ${name,,}", "echo ${name^}", "echo ${names[@]^^}"),
        *("echo ${lines[-1]}", "shopt -s globstar", "echo $EPOCHSECONDS", "[[ -v name ]]"),
        *("exec {file}>log", "printf '%(%F)T'", "echo {1..9..2}", "echo ${name@Q}"),
        *("echo ${name:0:-1}", "declare -u name", "declare -g name", "echo {01..03}"),
        "case $a in a) echo 1 ;;& *) echo 2 ;; esac",
    ],
)
def test_what_that_bash_has_not_is_seen(line: str) -> None:
    """bash 3.2 was built from its source, and refuses each of them or prints something else."""
    assert NEWER.search(line)


@pytest.mark.parametrize(
    "line", ["echo ${name: -1}", "echo ${name:-word}", "a && b || c &", "b >&2 2>/dev/null &"]
)
def test_what_that_bash_has_is_allowed(line: str) -> None:
    assert not NEWER.search(line)


# --- Links ----------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """What GitHub calls the headings: lower case, without punctuation, hyphens for blanks."""
    text = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    headings = [re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", one) for one in headings]
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("document", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        led_to = (document.parent / path).resolve() if path else document
        assert led_to.exists(), target
        if anchor:
            assert anchor in anchors(led_to), target


# --- What is listed -------------------------------------------------------------------------------


def test_the_table_of_files_says_what_the_fixtures_prove() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| [^|]+ \| ([^|]+) \|$", FORMATS.read_text("utf-8"), re.MULTILINE
    )
    proved: dict[str, set[str]] = {}
    for path in FIXTURES.glob("*.json"):
        expected = json.loads(path.read_text(encoding="utf-8"))
        # "keras 3.12.4, tensorflow 2.21.0": who wrote the file comes first.
        writer = expected["made_with"].partition(",")[0].lower()
        proved.setdefault(expected["format"], set()).add(writer)
    told = {name: {one.strip().lower() for one in cell.split(",")} for name, cell in rows}
    told = {name: versions for name, versions in told.items() if name not in families()}
    assert told == proved


def families() -> set[str]:
    return {family.name for family in FAMILIES}


def test_the_table_of_families_says_what_the_program_knows() -> None:
    text = FORMATS.read_text("utf-8").partition("## Which variables")[2]
    rows = {
        name: set(re.findall(r"`([^`]+)`", cell))
        for name, cell in re.findall(r"^\| `([^`]+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    }
    assert set(rows) == families()
    for name, shown in rows.items():
        same = [family for family in FAMILIES if family.name == name]
        usual = {leaf for family in same for leaf in (family.mean[0], family.variance[0])}
        every = {leaf for family in same for leaf in (*family.mean, *family.variance)}
        assert usual <= shown <= every, name


def test_the_table_of_formats_is_whole() -> None:
    section = IN_CI.read_text("utf-8").partition("## Formats")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(CHECK)


def test_the_table_of_exit_codes_is_that_of_the_help(run: Run) -> None:
    told = {line[0] for line in part(run("check", "-h").out, "Exit codes:") if line[0].isdigit()}
    assert set(re.findall(r"^\| (\d) \| ", IN_CI.read_text("utf-8"), re.MULTILINE)) == told
    section = (ROOT / "README.md").read_text("utf-8").partition("\n## In CI\n")[2]
    assert set(re.findall(r"\b(\d): ", section.partition("\n## ")[0])) == told


# --- Completion -----------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_documented_and_printed(shell: str, workplace: Path) -> None:
    lines = [line for block in blocks(STARTED, "sh") for line in block.text.splitlines()]
    command = f"bninspect completion {shell}"
    assert [command in line for line in lines].count(True) == 1
    done = run_in(workplace, command)
    assert done.returncode == 0
    assert f"_BNINSPECT_COMPLETE={shell}_complete" in done.stdout
    script = workplace / "completion"
    script.write_text(done.stdout, encoding="utf-8")
    program = shutil.which(shell)
    if program is not None:  # the shell itself, where it is installed, can read it
        read = subprocess.run([program, "-n", str(script)], capture_output=True, check=False)
        assert (read.returncode, read.stderr) == (0, b"")


@pytest.mark.processes
def test_completion_works_in_bash(workplace: Path) -> None:
    script = """
        eval "$(bninspect completion bash)"
        COMP_WORDS=(bninspect ch) COMP_CWORD=1
        _bninspect_completion bninspect
        echo "${COMPREPLY[*]}"
    """
    assert run_in(workplace, script).stdout == "check\n"


@pytest.mark.servers
@pytest.mark.parametrize(
    "words",
    [
        *("check mod", "list mod", "dump mod", "compare mod", "check model.h5 mod"),
        *(f"check {option} mod" for option in ("-o", "--config", "--baseline", "--since")),
        *("list --output mod", "rule --output mod", "config --config mod"),
    ],
)
def test_the_names_of_files_are_left_to_the_shell(words: str, workplace: Path) -> None:
    asked = {"COMP_WORDS": f"bninspect {words}", "COMP_CWORD": str(len(words.split()))}
    done = run_in(workplace, "bninspect", _BNINSPECT_COMPLETE="bash_complete", **asked)
    assert done.stdout == "file,mod\n"


@pytest.mark.servers
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("rule BN30", "BN301 BN302 BN303 BN304 BN305"),
        ("rule too", "too-few-updates"),
        ("check --select BN20", "BN201 BN202 BN203 BN204"),
        ("check --ignore BN101,BN304", "BN101,BN304"),
    ],
)
def test_rules_are_completed(words: str, completed: str, workplace: Path) -> None:
    asked = {"COMP_WORDS": f"bninspect {words}", "COMP_CWORD": str(len(words.split()))}
    done = run_in(workplace, "bninspect", _BNINSPECT_COMPLETE="bash_complete", **asked)
    assert done.stdout.split() == [f"plain,{name}" for name in completed.split()]


def test_the_table_of_modes_has_the_rows_of_its_benchmark() -> None:
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "bias_before_bn.py"))
    text = (ROOT / "docs" / "verified.md").read_text("utf-8")
    names = re.findall(r"^\| (?:batch|inference|mixed) \| ([^|]+) \|", text, re.MULTILINE)
    assert {*names} == {benchmark["PLAIN"], *benchmark["VARIATIONS"], *benchmark["MIXED"]}
