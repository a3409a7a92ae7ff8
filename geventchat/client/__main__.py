"""python -m geventchat.client"""

import sys

from geventchat.client.app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
