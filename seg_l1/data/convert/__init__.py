"""Annotations of other tools (COCO, LabelMe, YOLO, CVAT), converted into a folder of masks.

A reader per tool returns a `Source`: classes, images, and what lies on each. `write` draws it.
"""
