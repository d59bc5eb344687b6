"""`seg-l1 export`, from a checkout."""

import sys

from seg_l1.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]], checkout=True))
