"""The pure core: plans, states, events and the two functions that connect them. No I/O, no clock."""
