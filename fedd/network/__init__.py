"""The diffusion UNet: its layers, devices and batches, and how fast it runs."""
