"""One round of the loop after another: what comes in, what is learned, what goes out."""
