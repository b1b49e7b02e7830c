"""One kind of input each; none imports another. A modality is found by the name of its module."""
