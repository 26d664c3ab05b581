"""From what a person calls a checkpoint to files on this machine: names, addresses, the Hub, and what went wrong."""
