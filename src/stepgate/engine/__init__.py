"""The verbs on runs: the only owner of transactions, for the API, the command line and the worker alike."""
