"""From a task to its best policy: search, arbitration on other prompts, alignment."""
