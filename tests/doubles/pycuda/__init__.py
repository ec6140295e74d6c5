"""A double of pycuda for machines without a GPU: see `driver`."""

VERSION_TEXT = "double"
