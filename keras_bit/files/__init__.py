"""Files on a disk: written whole, had by one process at a time, and read with errors that say what is wrong."""
