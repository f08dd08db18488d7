"""What several tests of runs need."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bninspect.model.report import CheckpointReport
from bninspect.runs.known_layout import KnownLayout
from bninspect.runs.known_layouts import KnownLayouts


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many checkpoints were judged in each way.

    All at once ("plain"), layer by layer with a known layout ("by layer"), or in the ordinary way.
    """
    counts: Counter[str] = Counter()
    examine, judge, report = KnownLayouts.report, KnownLayout._judge, KnownLayout._plain_report

    def examined(*arguments: Any, **options: Any) -> CheckpointReport | None:
        result = examine(*arguments, **options)
        counts["ordinary"] += result is None
        return result

    def judged(*arguments: Any, **options: Any) -> CheckpointReport:
        result = judge(*arguments, **options)
        counts["by layer"] += 1
        return result

    def passed(*arguments: Any, **options: Any) -> CheckpointReport:
        counts["plain"] += 1
        return report(*arguments, **options)

    monkeypatch.setattr(KnownLayouts, "report", examined)
    monkeypatch.setattr(KnownLayout, "_judge", judged)
    monkeypatch.setattr(KnownLayout, "_plain_report", passed)
    return counts
