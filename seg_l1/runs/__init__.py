"""Run directories: the files of a run, and who may be trusted."""
