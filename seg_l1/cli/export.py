"""Writes the best network of a run as one ONNX file, checked in onnxruntime.

    seg-l1 export run=<run directory>[/compact] [format=onnx] [precision=fp32|fp16|int8]
                  [output=scores|classes] [file=<run>/model.onnx] [dataset.root=...]

Needs the extra `export`: pip install 'seg-l1[export]'. The file takes pixels from 0 to 255
(uint8, N x channels x height x width), since the normalization is part of it, and gives logits
(output=scores) or class ids (output=classes). Its metadata hold classes, colors and image size.

Before the file is written its outputs are compared with those of torch on the validation images.
int8 is calibrated on training images; mIoU, size and time are printed beside those of float32.
seg-l1 predict model=<file> needs no torch.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys

from seg_l1.cli.arguments import key_values, say
from seg_l1.config.commands import assignment, command_line
from seg_l1.errors import UserError, did_you_mean

KEYS = ("run", "format", "precision", "output", "file", "dataset.root")
CHOICES = {
    "format": ("onnx",),
    "precision": ("fp32", "fp16", "int8"),
    "output": ("scores", "classes"),
}


def run(words: list[str]) -> int:
    """Writes the file; returns the exit code."""
    typed = key_values(words, KEYS, required=("run",))
    for key, choices in CHOICES.items():
        if (value := typed.get(key, choices[0])) not in choices:
            hint = did_you_mean(value, choices)
            raise UserError(f"{key}: got '{value}', expected {' or '.join(choices)}.{hint}")
    from seg_l1.display.export_text import export_text
    from seg_l1.training.export import export_run

    done = export_run(
        typed["run"],
        file=typed.get("file"),
        output=typed.get("output", "scores"),
        precision=typed.get("precision", "fp32"),
        root=typed.get("dataset.root"),
        say=say,
    )
    sys.stdout.write(f"{export_text(done)}\n\nthe network is in {done.path}\n")
    model = assignment("model", done.path)
    line = command_line("predict", model, "input=images", "output=predictions")
    sys.stdout.write(f"\nnext:\n  {line}\n")
    return 0
