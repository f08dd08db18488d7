"""The program's entry, also as `python -m bninspect`."""

import os


def main() -> None:
    """Run the command line and exit with its code."""
    # numpy starts a thread pool for linear algebra, half of its import time; nothing here uses it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from bninspect.cli.main import run  # after the variable is set

    run()


if __name__ == "__main__":
    main()
