"""One story: which committed pieces have to be opened by whom (`plan`), and what was (`read`)."""
