"""From a model to what servers, phones and other engines run, and how they are asked."""
