"""TensorFlow for the tests of its files, imported by those that ask for it."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def tf() -> Any:
    import tensorflow

    return tensorflow
