"""From accepted runs to the number that is ranked: parameters and FLOPs, peaks of devices, medians."""
