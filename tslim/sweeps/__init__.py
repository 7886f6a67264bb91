"""Many trainings from one small file, on one machine or many, as one table."""
