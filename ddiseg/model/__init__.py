"""Model versions: trained, compared, promoted, applied to images, described."""
