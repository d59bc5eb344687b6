"""`seg-l1 convert`, from a checkout."""

import sys

from seg_l1.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]], checkout=True))
