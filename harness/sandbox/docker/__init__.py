"""Level `docker`: the ranks in a hardened container of the project's image, the judge outside."""
