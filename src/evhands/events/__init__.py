"""Events: files, windows, representations, warping, noise."""
