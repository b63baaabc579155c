"""``python -m snakepit_worker``: the process that the host starts."""

import sys

from snakepit_worker.cli import main

if __name__ == "__main__":
    sys.exit(main())
