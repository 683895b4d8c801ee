"""The trusted training: the loop (`loop`), and its launch in a sandbox of its own (`launch`)."""
