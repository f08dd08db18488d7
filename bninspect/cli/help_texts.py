"""The text below the options in the help of each command: paths, exit codes, examples.

The tests run every example.
"""

from __future__ import annotations

# Lines after \b are shown as they stand: at most 76 characters fit into 80 columns.
_PATHS = """
\b
PATH may be
  model.ckpt-200      the prefix of a checkpoint, or any of its files
  model.h5            a Keras file: .h5, .keras, .weights.h5, .weights.json
  model.json          a TensorFlow.js model, beside the shards of its weights
  model.onnx          an ONNX model
  export/1/           a SavedModel, a TF-Hub module
  state_30/           a step that Orbax saved; around it: its newest step
  frozen_graph.pb     a frozen graph, also as text (.pbtxt)
  training_dir/       the newest checkpoint that its `checkpoint` file names
  models/             any other directory: every checkpoint below it, once
  'runs/*/model.h5'   a quoted pattern; ** matches any number of directories
  s3://bucket/run1/   the URL of any of these: s3, gs, az, hf, https
The format is detected from the file's content, not its name.
"""

_CHECK_CODES = """\
  0  nothing at or above --fail-on
  1  findings at or above --fail-on
  2  something could not be read, or the call was wrong
  3  nothing was checked: no file had a BN layer that can be checked, or none
     could be compared with --since
"""

MAIN = f"""{_PATHS}
\b
Examples:
  bninspect check model.ckpt-200       # is anything wrong? exit code 1 if so
  bninspect list model.h5              # which BN layers are in it?
  bninspect dump model.h5 --layer bn1  # what are the values of this one?
  bninspect compare training_dir/      # what moved between checkpoints?
  bninspect report model.h5 -o a.html  # the same as a page for a browser
  bninspect recalibrate stuck.h5 --data samples.npz --dry-run  # a cure?
  bninspect watch run2/ --fail-fast    # stop when a training goes wrong
  bninspect rule BN101                 # what does a finding mean? how to fix?

`bninspect COMMAND --help` shows the options of a command, its exit codes and more examples.
"""

CHECK = f"""{_PATHS}
\b
Formats:
  text      a report for people
  concise   one line per finding
  json      for programs; `bninspect schema` describes it
  jsonl     the same, one line per checkpoint when it is done, for long runs
  github    annotations for a GitHub workflow
  sarif     SARIF 2.1.0, for code scanning
  junit     JUnit XML, for the test reports of GitLab and Jenkins
  gitlab    a Code Quality report, for the merge requests of GitLab
  markdown  findings in groups, each fix once: the summary of a CI job
  html      the page of `bninspect report`

\b
Exit codes:
{_CHECK_CODES}2 wins over 1, 1 over 3. A checkpoint that cannot be read does not end the
run. No format changes the exit code. An interrupted run writes the results
so far and exits with 130.

\b
Examples:
  bninspect check model.ckpt-200
  bninspect check run1/ run2/ --format json=report.json --format text
  bninspect check training_dir/ --all-checkpoints
  bninspect check model.ckpt-400 --since model.ckpt-200
  bninspect check model.h5 --ignore BN303 --fail-on warning
  bninspect check models/ --baseline known.json --update-baseline
  bninspect check models/ --baseline known.json
  bninspect check models/ runs/ --jobs 2 --format concise
  bninspect check models/ --format jsonl=all.jsonl --resume all.jsonl
  bninspect check models/ runs/ --statistics   # each fix once
  bninspect check runs/ --format sarif=bninspect.sarif --format github
"""

LIST = f"""{_PATHS}
\b
Exit codes:
  0  every file was read, even if there is no BN layer
  2  something could not be read, or the call was wrong

\b
Examples:
  bninspect list model.ckpt-200
  bninspect list model.h5 --verbose    # with the stored name of each variable
  bninspect list model.h5 --quiet      # names only, for scripts
  bninspect list model.ckpt-200 --graph  # who updates the averages?
  bninspect list models/ --format json -o layers.json
"""

DUMP = """
\b
Formats:
  text   the values with a histogram of each
  json   for programs; `bninspect schema` describes it
  csv    one line per channel
  npz    a NumPy archive with one array per variable

\b
Exit codes:
  0  the values are shown
  2  something could not be read, no layer has that name, or the call was
     wrong

\b
Examples:
  bninspect dump model.h5 --layer bn1
  bninspect dump model.h5 --layer 'bn*' --format csv -o values.csv
  bninspect dump model.h5 --layer '*' --format npz -o values.npz
  bninspect dump training_dir/ --all-checkpoints --layer 'conv1/*' --quiet
"""

COMPARE = """
\b
Formats:
  text   a report for people
  json   for programs; `bninspect schema` describes it
  csv    one line per variable and pair of consecutive checkpoints

\b
Exit codes:
  0  nothing at or above --fail-on
  1  findings at or above --fail-on
  2  something could not be read, there are fewer than two checkpoints, or
     the call was wrong
  3  there is no BN layer to compare

\b
Examples:
  bninspect compare model.ckpt-200 model.ckpt-400
  bninspect compare training_dir/
  bninspect compare training_dir/ --format csv -o changes.csv
"""

REPORT = f"""{_PATHS}
\b
Exit codes are those of `check`:
{_CHECK_CODES}
\b
Examples:
  bninspect report model.ckpt-200 -o report.html
  bninspect report training_dir/ --all-checkpoints -o report.html
  bninspect report models/ --fail-on never > report.html
"""

WATCH = """
\b
Exit codes, when it ends by itself or by SIGTERM, are those of `check`:
  0  nothing at or above --fail-on
  1  findings at or above --fail-on
  2  a checkpoint stayed unreadable, or the call was wrong
  3  no checkpoint with a BN layer arrived
Ctrl-C ends it with a summary and exit code 130.

\b
Examples:
  bninspect watch training_dir/ --timeout 1
  bninspect watch training_dir/ --fail-fast --timeout 1
  bninspect watch training_dir/ --until-step 20 --format jsonl --timeout 1
"""

RECALIBRATE = """
\b
MODEL may be
  model.keras, model.h5  a whole model of Keras
  model.ckpt-200         the prefix of a TensorFlow 1 checkpoint, with the
                         .meta file of its graph beside it
  export/1/              a SavedModel

\b
Exit codes:
  0  the copy is written (with --dry-run: it could be)
  2  refused, something could not be read, or the call was wrong

\b
Examples:
  bninspect recalibrate stuck.h5 --data samples.npz -o fixed.h5
  bninspect recalibrate stuck.h5 --data samples.npz --batch 32 --dry-run
"""

RULE = """
\b
Exit codes:
  0  the page is shown
  2  the rule, cause or framework is unknown, or the call was wrong

\b
Examples:
  bninspect rule                       # all rules and causes, one per line
  bninspect rule BN101
  bninspect rule statistics-frozen     # by name
  bninspect rule update-ops-not-run    # a cause
  bninspect rule BN101 --for keras-3   # how to fix it in Keras 3 first
  bninspect rule --format markdown -o rules.md
  bninspect rule BN101 --format json
"""

CONFIG = """
\b
Exit codes:
  0  the configuration is valid
  2  it is not (the message names the file and the key), or the call was
     wrong

\b
Examples:
  bninspect config
  bninspect config --select BN1 --format json
  bninspect config --config ci/bninspect.toml
  bninspect config --isolated          # the defaults
"""

COMPLETION = """
\b
Examples:
  bninspect completion bash > bninspect.bash
  bninspect completion zsh > _bninspect
  bninspect completion fish > bninspect.fish
"""

HELP = """
\b
Examples:
  bninspect help
  bninspect help check
"""

SCHEMA = """
\b
Examples:
  bninspect schema > bninspect.schema.json
"""
