"""Many runs: sweeps, searches and paths."""
