"""Texts on a recalibration that formats share: its outcome, its verdict, and outputs by mode."""

from __future__ import annotations

from bninspect.model.recalibration import OutputChange, Quality, Recalibration
from bninspect.wording import plural

# Nothing in a file or in samples can show these.
ONLY_THE_USER_KNOWS = (
    "the samples went through the same preprocessing as at serving (and no augmentation)",
    "all classes and all kinds of inputs are among them, as often as in the training data",
)
_SAME, _DISTANCE = "same predictions as in training", "distance from those in training"


def outcome(result: Recalibration) -> str:
    """Return the word for a result: CURED, CURABLE where nothing was to be written, REFUSED."""
    if result.refusal is not None:
        return "REFUSED"
    return "CURABLE" if result.dry_run else "CURED"


def verdict(result: Recalibration) -> str:
    """Return what was done, or why nothing was, in one sentence."""
    if result.refusal is not None:
        return f"{result.path}: {result.refusal}"
    total = len(result.layers) + len(result.kept)
    return (
        f"{result.path}: statistics of {len(result.layers)} of {plural(total, 'BN layer')}"
        f" re-estimated from {plural(result.samples, 'sample')} in"
        f" {plural(result.batches, 'batch', 'batches')}; {_written(result)}"
    )


def _written(result: Recalibration) -> str:
    if result.output is not None:
        return f"written to {result.output}"
    return "nothing was written (dry run)" if result.dry_run else "the live model was changed"


def modes(
    quality: Quality | None, outputs: OutputChange | None
) -> list[tuple[str, dict[str, str]]]:
    """Return what is known of the outputs in each mode: its name, and phrases by their headings."""
    training: dict[str, str] = {}
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    if quality is not None:
        form = "{:.1%}" if quality.measure == "accuracy" else "{:.4g}"
        training[quality.measure] = form.format(quality.training)
        before[quality.measure] = form.format(quality.before)
        after[quality.measure] = form.format(quality.after)
    if outputs is not None:
        before[_DISTANCE] = f"{outputs.apart_before:.3g}"
        after[_DISTANCE] = f"{outputs.apart_after:.3g}"
        if outputs.same_before is not None and outputs.same_after is not None:
            before[_SAME] = f"{outputs.same_before:.1%}"
            after[_SAME] = f"{outputs.same_after:.1%}"
    return [
        ("with the statistics of each batch, as in training", training),
        ("at inference, before", before),
        ("at inference, after", after),
    ]
