"""Images and masks: scenes of digits, folders of files, the data sets of the literature."""
