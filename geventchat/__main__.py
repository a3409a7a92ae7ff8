"""python -m geventchat"""

import sys

from geventchat.cli import main

if __name__ == "__main__":
    sys.exit(main())
