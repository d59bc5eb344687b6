"""Scores the best weights of a run, and shows the images on which they are worst.

    seg-l1 evaluate run=<run directory>[/compact] [split=val|test] [dataset.root=...] [device=...]
                    [output=<folder>]

`split` defaults to test, or to val if the data set has no test split.

Prints the scores of the split, under the keys that training uses, as JSON. Writes into `output`

    images.csv   a row per image, the worst first: its name, labeled pixels, mIoU, pixel accuracy,
                 and the IoU of each class, empty for one that does not occur in the image
    worst.png    the sixteen images with the lowest mIoU: image, mask, prediction and errors
    scores.json  what is printed, and what was scored

The mIoU of an image is the mean of the IoU over the classes that occur in its mask or prediction,
at the size at which the run reads it. Unlabeled pixels do not count, and images without a labeled
pixel come last.

`output` defaults to <run>/evaluation/<split>, or, for images from outside the run's data set, to
<run>/evaluation/<split>_<name of dataset.root>_<fingerprint of the data>. Repeating an evaluation
replaces its files. A run is scored even if its directory cannot be written to.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import json
import sys

from seg_l1.cli.arguments import key_values, say
from seg_l1.errors import UserError

KEYS = ("run", "split", "dataset.root", "device", "output")


def run(words: list[str]) -> int:
    """Prints the scores and writes those of the images; returns the exit code."""
    typed = key_values(words, KEYS, required=("run",))
    from seg_l1.runs.files import finite
    from seg_l1.training.image_table import evaluate_images

    root, device, output = (typed.get(key) for key in ("dataset.root", "device", "output"))
    done = evaluate_images(
        typed["run"], typed.get("split"), root=root, device=device, output=output
    )
    sys.stdout.write(json.dumps(finite(done.scores), indent=2) + "\n")
    sys.stdout.flush()
    try:
        done.write()
    except UserError as error:
        if output is not None:
            raise
        say(f"note: the scores of each image are not written: {error} Give output=<folder>.")
    else:
        say(f"images.csv (the worst first) and worst.png are in {done.folder}")
    return 0
