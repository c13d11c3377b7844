"""Rules written by people that say, for every action, whether it may happen, must be asked about, or may not be."""
