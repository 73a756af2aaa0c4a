"""The diffusion UNet itself: its layers made fast, its batches, its devices."""
