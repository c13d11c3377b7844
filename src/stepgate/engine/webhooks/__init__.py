"""Telling others what happens: the verbs on webhooks, what a message says, and who sends it where."""
