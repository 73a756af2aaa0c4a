"""FEDD: segmentation from a few labelled images with the features of a frozen diffusion UNet.

Carrion and Norouzi, "FEDD: Fair, Efficient, and Diverse Diffusion-based Lesion Segmentation and
Malignancy Classification", MICCAI 2023. This package knows tensors and masks, and nothing of the
catalogue.
"""
