"""Files on a disk: atomic writes, locks between processes, and errors that say what is wrong with a file."""
