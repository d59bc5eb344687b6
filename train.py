"""`seg-l1 train`, from a checkout: `python train.py --help`."""

import sys

from seg_l1.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], checkout=True))
