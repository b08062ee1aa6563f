"""Commands on recorded landscapes."""
