"""``python -m mmtpp``, the same as the ``mmtpp`` command."""

import sys

from mmtpp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
