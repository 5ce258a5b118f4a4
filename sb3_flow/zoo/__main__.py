"""``python -m sb3_flow.zoo``: the same as the command ``sb3-flow``."""

import sys

from sb3_flow.cli import main

if __name__ == "__main__":
    sys.exit(main())
