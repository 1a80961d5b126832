"""Two workers share the machine, so each computes in one thread; so do the programs that tests start."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
