"""The program's entry, also as `python -m bninspect`."""

import gc
import os
import sys

from bninspect.cli.exit_codes import PROBLEM


def main() -> None:
    """Run the command line and exit with its code."""
    # numpy starts a thread pool for linear algebra, half of its import time; nothing here uses it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imports make some 40,000 objects that stay. Each collection would look at all of them.
    gc.set_threshold(50_000)
    try:
        from bninspect.cli.main import run  # after the variable is set
    except (ImportError, MemoryError, OSError) as error:
        # Python would exit with 1, "findings". The modules that word messages may be missing, too.
        reason = "there is too little memory" if isinstance(error, MemoryError) else str(error)
        os.write(2, f"bninspect: cannot start: {reason}.\n".encode(errors="backslashreplace"))
        sys.exit(PROBLEM)
    try:
        run()
    finally:
        gc.freeze()  # so that the interpreter does not look at them before it ends, either


if __name__ == "__main__":
    main()
