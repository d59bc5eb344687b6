"""seg_l1 beside the other ways to train the same network (`python -m benchmarks.peers`)."""
