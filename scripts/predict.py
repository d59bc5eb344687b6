"""`seg-l1 predict`, from a checkout."""

import sys

from seg_l1.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]], checkout=True))
