"""Claims runs and drives them: the only part of Stepgate that executes steps."""
