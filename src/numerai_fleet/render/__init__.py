"""A round as engines describe work, for those that `run` does not submit to."""
