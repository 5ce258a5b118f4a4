"""``python -m sb3_flow.zoo`` is the command ``sb3-flow``."""

import sys

from sb3_flow.cli import main

if __name__ == "__main__":
    sys.exit(main())
