"""Trains a segmentation network with a penalty on its weights: `python train.py --help`."""

import sys

from seg_l1.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
