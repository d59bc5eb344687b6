"""Images and masks: `digits` (made from scikit-learn's wheel) and `folder` (your own files)."""
