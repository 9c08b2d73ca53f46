"""Runs a whole round of models on engines that exist."""
