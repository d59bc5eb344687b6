"""Segmentation networks: (N, C, H, W) float images in, (N, K, H, W) logits out."""
