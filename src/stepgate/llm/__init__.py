"""Clients of model routers, and what stands in where there is none. Calls here are neither retried nor recorded."""
