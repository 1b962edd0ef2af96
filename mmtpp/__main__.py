"""``python -m mmtpp``: tools beside the jobs."""

import sys

from mmtpp.inspect.command import main

if __name__ == "__main__":
    sys.exit(main())
