"""Data sets: digit scenes, folders of files, data sets of the literature; splits and batches."""
