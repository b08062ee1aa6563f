"""MLIR from elsewhere: what of it may be parsed and interpreted."""
