"""Sentences on a recalibration, the same in every format."""

from __future__ import annotations

from bninspect.model.recalibration import OutputChange, Quality, Recalibration
from bninspect.wording import plural

_SAME, _DISTANCE = "same predictions as in training", "distance from those in training"
# What no file and no sample shows.
ONLY_YOU_KNOW = (
    "The samples are preprocessed as at serving, and not augmented.",
    "They are as varied as what the model will see: all classes, in their usual shares.",
    "They are shuffled: batches of one class have other moments than mixed ones.",
)


def outcome(result: Recalibration) -> str:
    """Return one word for a result: REFUSED, DRY RUN or CURED."""
    if not result.ok:
        return "REFUSED"
    return "DRY RUN" if result.dry_run else "CURED"


def verdict(result: Recalibration) -> str:
    """Return the first sentence on a result: what was done, or why nothing was."""
    if result.refusal is not None:
        return result.refusal
    layers = plural(len(result.layers), "BN layer")
    if result.dry_run:
        return f"The statistics of {layers} can be re-estimated; nothing was written."
    where = "" if result.output is None else f"; the copy is {result.output}"
    return f"The statistics of {layers} were re-estimated{where}."


def on_samples(result: Recalibration) -> str:
    """Return how many samples were used."""
    return f"{plural(result.samples, 'sample')} in {result.batches} batches"


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
