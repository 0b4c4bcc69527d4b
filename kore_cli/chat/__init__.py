"""The chat: on a terminal, in pipes, and the child process that holds the model."""
