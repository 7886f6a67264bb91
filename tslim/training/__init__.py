"""Training: the loop as an iterator of events, its schedules, optimizer, sampler and run folder."""
