"""What others can feed to the judge, mutated for as long as one likes: `make fuzz`."""
