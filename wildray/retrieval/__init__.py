"""Retrieval: vectors out of crops, neighbours out of vectors, and how often the neighbour is the same animal."""
