"""Finds a checkpoint by name, address or Hub id, and downloads its files."""
