"""What trains the pixel probes, and how sure they may be."""
