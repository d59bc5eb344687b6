"""`seg-l1 evaluate`, from a checkout."""

import sys

from seg_l1.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]], checkout=True))
