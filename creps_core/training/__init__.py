"""Training: discriminator, losses, augmentation, data sets, runs. Imports nothing of ComfyUI."""
