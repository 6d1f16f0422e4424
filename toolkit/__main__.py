"""`python -m toolkit`."""

import atexit
import gc
import sys

from toolkit.cli.main import main

# Python looks for garbage as it ends. Among torch's objects that takes seconds, and the memory goes back in any case.
atexit.register(gc.freeze)

if __name__ == "__main__":
    sys.exit(main())
