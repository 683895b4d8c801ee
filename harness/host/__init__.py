"""What this machine offers a judge, how fast its devices are, what a killed judge has left on it."""
