"""``python -m sb3_flow`` is the command ``sb3-flow``, for environments whose scripts are not on the path."""

import sys

from sb3_flow_command import main

if __name__ == "__main__":
    sys.exit(main())
