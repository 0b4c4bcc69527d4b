"""Who answers: a server, a local model, recorded replies, or plain rules."""
