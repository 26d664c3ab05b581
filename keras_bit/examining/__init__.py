"""Examining a data set by what a network sees in its images: no weight is trained."""
