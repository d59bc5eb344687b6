"""Run directories: the files of a run, and which code they may call."""
