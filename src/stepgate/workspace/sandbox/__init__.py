"""Running commands that nobody trusts: namespaces, a system call filter and limits, proved by canaries at start-up."""
