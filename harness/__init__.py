"""The judge. Nothing in this package imports, unpickles or evaluates anything of a submission."""

__version__ = "0.1.0"
