"""One paper each; none imports another. An objective is found by the name of its module."""
